//! What an operator may ask on `--debug-socket`.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::watch;

use crate::reconcile::View;
use crate::server::Debug;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers from how things stood last.
pub struct Answers(pub watch::Receiver<Arc<View>>);

impl Debug for Answers {
    fn names(&self) -> Vec<&'static str> {
        vec!["snapshot", "config", "in-force", "problems", "release"]
    }

    fn document(&self, name: &str) -> Option<(String, &'static str)> {
        let view = self.0.borrow().clone();
        match name {
            "snapshot" => Some((snapshot(&view), TEXT)),
            "config" => Some((json(&view.config.as_deref()), JSON)),
            "in-force" => Some((json(&view.in_force.as_deref()), JSON)),
            "problems" => Some((json(&view.problems), JSON)),
            "release" => Some((release(&view), TEXT)),
            _ => None,
        }
    }
}

/// Types that hold secrets print them redacted.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

/// The names of all objects: what they say is asked of kubectl.
fn snapshot(view: &View) -> String {
    let Some(snapshot) = &view.snapshot else { return "nothing has been listed yet\n".to_owned() };
    let mut out = String::new();
    let mut list = |kind: &str, names: Vec<String>| {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{kind} ({})", names.len());
        for name in names {
            let _ = writeln!(out, "  {name}");
        }
    };
    let text = ToString::to_string;
    list("Ingress", snapshot.ingresses.keys().map(text).collect());
    list("IngressClass", snapshot.ingress_classes.iter().flatten().map(|(name, _)| name.to_string()).collect());
    list("Service", snapshot.services.keys().map(text).collect());
    list("EndpointSlice", snapshot.endpoint_slices.keys().map(text).collect());
    list("Secret", snapshot.secrets.keys().map(text).collect());
    list("ConfigMap", snapshot.config_maps.keys().map(text).collect());
    out
}

fn release(view: &View) -> String {
    let mut out = match &view.report {
        Some(report) => format!("{}\n", json(report)),
        None => "the proxy's side has not answered yet\n".to_owned(),
    };
    for fault in &view.faults {
        let _ = writeln!(out, "wrong: {fault}");
    }
    for name in &view.held {
        let _ = writeln!(out, "held back: Ingress {name}");
    }
    out
}
