//! `coxswain check`: every problem of every object, for a person or for a machine. Nothing is changed anywhere.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::flags::Common;
use super::input::Input;
use super::{layout, told};
use crate::model::ProxyConfig;
use crate::problem::{Problem, Severity, Subject};
use crate::render::{History, render};
use crate::settings::{Flags, Settings};
use crate::snapshot::Snapshot;
use crate::translate::{HeldBack, translate};

/// Flags of `coxswain check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    common: Common,

    /// How the problems are printed: for people, or as one JSON object.
    #[arg(long, env = "COXSWAIN_OUTPUT", value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// How problems are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl Check {
    /// Prints every problem. Exit code 1: something is rejected.
    pub fn run(self) -> ExitCode {
        let printed = self.findings().and_then(|findings| {
            let text = match self.output {
                Output::Text => findings.to_string(),
                Output::Json => findings.json() + "\n",
            };
            match io::stdout().write_all(text.as_bytes()) {
                // A reader that has read enough (`| head`) is no fault.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("printing"),
                _ => Ok(findings),
            }
        });
        match printed {
            Ok(findings) => ExitCode::from(u8::from(findings.rejected())),
            Err(error) => told(Err(error)),
        }
    }

    fn findings(&self) -> anyhow::Result<Findings> {
        let input = Input::read(&self.common)?;
        let mut findings = Findings::of(&input.snapshot, &input.flags, input.now);
        let kind = self.common.proxy.proxy;
        findings.add(render(&findings.config, kind, &History::default())?.problems);
        // The proxy is asked only where somebody names it.
        if let Some(bin) = &self.common.proxy.proxy_bin {
            let refused = layout::refused_by(bin, &findings.config, kind)?;
            findings.add(refused);
        }
        Ok(findings)
    }
}

/// What `check` found: the problems of arrival, settings and translation together.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What the proxy would be told to do.
    pub config: ProxyConfig,
    problems: Vec<Problem>,
    /// How many Ingresses there are, and how many of them are ours.
    ingresses: (usize, usize),
}

impl Findings {
    /// Looks at everything. `now` is in seconds since 1970.
    pub fn of(snapshot: &Snapshot, flags: &Flags, now: i64) -> Self {
        let (settings, problems) = Settings::read(flags, snapshot);
        let translation = translate(snapshot, &settings, &HeldBack::default(), now);
        let ingresses = (snapshot.ingresses.len(), translation.ours.len());
        let mut findings = Self { config: translation.config, problems, ingresses };
        findings.add(snapshot.problems.iter().cloned().chain(translation.problems));
        findings
    }

    /// Adds what others found.
    pub fn add(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.problems.extend(problems);
        self.problems.sort_by(|a, b| {
            // The shorter field first, so that `[2]` stands before `[10]`.
            let key = |problem: &Problem| (problem.severity, problem.field.len());
            a.subject.cmp(&b.subject).then(key(a).cmp(&key(b))).then(a.cmp(b))
        });
        self.problems.dedup();
    }

    /// The problems, by object.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether anything is not served because of what an object says: then the exit code is 1.
    pub fn rejected(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Rejected)
    }

    /// For machines: an object with `problems`, one line.
    pub fn json(&self) -> String {
        let problems: Vec<_> = self.problems.iter().map(Entry::from).collect();
        // Names and numbers only: nothing of it can fail to be written.
        serde_json::json!({ "problems": problems }).to_string()
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// For a person: the problems object by object, and how many there are.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last: Option<&Subject> = None;
        for problem in &self.problems {
            let Problem { subject, field, severity, reason, message, effect } = problem;
            if last != Some(subject) {
                writeln!(f, "{subject}")?;
                last = Some(subject);
            }
            let at = if field.is_empty() { String::new() } else { format!(" at {field}") };
            writeln!(f, "  {severity}: {reason}{at}\n      {message}")?;
            if !effect.is_empty() {
                writeln!(f, "      -> {effect}")?;
            }
        }
        let (all, ours) = self.ingresses;
        let count = |n, one, many| format!("{n} {}", if n == 1 { one } else { many });
        let mut total = format!("{}: ", count(self.problems.len(), "problem", "problems"));
        for (severity, text) in
            [(Severity::Rejected, " rejected, "), (Severity::Degraded, " degraded, "), (Severity::Notice, " of note")]
        {
            write!(total, "{}{text}", self.count(severity))?;
        }
        writeln!(f, "{total}; {} of {} served here", ours, count(all, "Ingress", "Ingresses"))
    }
}

/// A problem in JSON.
#[derive(Serialize)]
struct Entry<'a> {
    kind: String,
    namespace: Option<&'a str>,
    name: &'a str,
    field: &'a str,
    severity: Severity,
    reason: String,
    message: &'a str,
    effect: &'a str,
}

impl<'a> From<&'a Problem> for Entry<'a> {
    fn from(problem: &'a Problem) -> Self {
        let Problem { subject, field, severity, reason, message, effect } = problem;
        let Subject { kind, object, uid: _ } = subject;
        Self {
            kind: kind.to_string(),
            namespace: object.namespace.as_ref().map(|namespace| namespace.as_str()),
            name: object.name.as_str(),
            field,
            severity: *severity,
            reason: reason.to_string(),
            message,
            effect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Kind, Reason};
    use crate::value::Value as _;
    use crate::value::reference::{Name, ObjectName};

    fn findings() -> Findings {
        let ingress = Subject { kind: Kind::Ingress, object: ObjectName::parse("shop/web").unwrap(), uid: None };
        let class =
            Subject { kind: Kind::IngressClass, object: ObjectName::cluster(Name::parse("c").unwrap()), uid: None };
        let snapshot = Snapshot {
            problems: vec![
                ingress.notice(Reason::PortNotFound, "spec.a", "is \"odd\"", "used"),
                ingress.rejected(Reason::InvalidHost, "spec.rules[0].host", "is bad", "not served"),
                class.degraded(Reason::ParametersNotFound, "", "has none", ""),
                class.degraded(Reason::ParametersNotFound, "", "has none", ""),
            ],
            ..Snapshot::default()
        };
        Findings::of(&snapshot, &Flags::default(), 0)
    }

    #[test]
    fn a_person_reads_object_place_text_and_effect() {
        assert_eq!(
            findings().to_string(),
            "Ingress shop/web\n  \
               rejected: InvalidHost at spec.rules[0].host\n      \
                   is bad\n      \
                   -> not served\n  \
               notice: PortNotFound at spec.a\n      \
                   is \"odd\"\n      \
                   -> used\n\
             IngressClass c\n  \
               degraded: ParametersNotFound\n      \
                   has none\n\
             3 problems: 1 rejected, 1 degraded, 1 of note; 0 of 0 Ingresses served here\n"
        );
        let none = Findings::of(&Snapshot::default(), &Flags::default(), 0);
        assert_eq!(none.to_string(), "0 problems: 0 rejected, 0 degraded, 0 of note; 0 of 0 Ingresses served here\n");
        assert!(findings().rejected() && !none.rejected());
    }

    #[test]
    fn a_machine_reads_exactly_these_keys() {
        let json: serde_json::Value = serde_json::from_str(&findings().json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"problems": [
                {"kind": "Ingress", "namespace": "shop", "name": "web", "field": "spec.rules[0].host",
                 "severity": "rejected", "reason": "InvalidHost", "message": "is bad", "effect": "not served"},
                {"kind": "Ingress", "namespace": "shop", "name": "web", "field": "spec.a",
                 "severity": "notice", "reason": "PortNotFound", "message": "is \"odd\"", "effect": "used"},
                {"kind": "IngressClass", "namespace": null, "name": "c", "field": "",
                 "severity": "degraded", "reason": "ParametersNotFound", "message": "has none", "effect": ""},
            ]})
        );
    }
}
