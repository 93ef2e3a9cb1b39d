//! What we tell people about their objects: one [`Problem`] per finding, one closed list of [`Reason`]s.
//!
//! Events, metrics, `check`, the webhook and the log all print the same problems. Who finds them lies elsewhere.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::Serialize;

use crate::value::Value;
use crate::value::reference::{Name, ObjectName};

/// Kinds of object that can be told something.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(missing_docs, reason = "the names are Kubernetes' own")]
pub enum Kind {
    ConfigMap,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Pod,
    Secret,
    Service,
    /// Not an object: a file or a document in one that could not be read as an object.
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The object whose author must act. Prints as `Ingress shop/web`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Subject {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub object: ObjectName,
    /// Its uid, where it came from the API server. Only ever sent back to it, never rendered.
    pub uid: Option<String>,
}

impl Subject {
    /// A file, for what is wrong with it and not with an object in it. A path is no name of an object, so the name is
    /// only like the file's; the path itself stands in the problem's field and message.
    pub fn file(path: &str) -> Self {
        let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("file");
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
        let text: String = last.chars().take(253).map(plain).collect();
        let parts: Vec<&str> = text.split('.').map(|part| part.trim_matches('-')).filter(|p| !p.is_empty()).collect();
        let text = if parts.is_empty() { "file".to_owned() } else { parts.join(".") };
        let Ok(name) = Name::parse(&text) else { unreachable!("{text:?} was made of the characters of a name") };
        Self { kind: Kind::File, object: ObjectName::cluster(name), uid: None }
    }

    /// Something of this object that is not served because of what it says.
    pub fn rejected(&self, reason: Reason, at: impl Into<String>, wrong: impl Into<String>, effect: &str) -> Problem {
        self.problem(Severity::Rejected, reason, at.into(), wrong.into(), effect)
    }

    /// Something of this object that is served, but not as written.
    pub fn degraded(&self, reason: Reason, at: impl Into<String>, wrong: impl Into<String>, effect: &str) -> Problem {
        self.problem(Severity::Degraded, reason, at.into(), wrong.into(), effect)
    }

    /// Something that the author of this object should know.
    pub fn notice(&self, reason: Reason, at: impl Into<String>, wrong: impl Into<String>, effect: &str) -> Problem {
        self.problem(Severity::Notice, reason, at.into(), wrong.into(), effect)
    }

    fn problem(&self, severity: Severity, reason: Reason, field: String, message: String, effect: &str) -> Problem {
        Problem { subject: self.clone(), field, severity, reason, message, effect: effect.to_owned() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)
    }
}

/// How much of what the author wants is served.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// An object, host or path is not served, or answers 503, because of what it says. `check` exits with 1 and the webhook denies.
    Rejected,
    /// Served, but not as written; or 503 because what it refers to is missing or has no endpoints.
    Degraded,
    /// Served as written; something is worth knowing.
    Notice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "rejected",
            Self::Degraded => "degraded",
            Self::Notice => "notice",
        })
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $snake:literal,)+) => {
        /// Why a problem was told: the closed list. PascalCase in Events, snake_case in metrics.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in metrics.
            pub fn snake_case(self) -> &'static str {
                match self { $(Self::$name => $snake,)+ }
            }
        }
    };
}

reasons! {
    /// A value cannot be used; the message says what would be right.
    InvalidValue = "invalid_value",
    /// A host cannot be a DNS name or a single-label wildcard.
    InvalidHost = "invalid_host",
    /// A path cannot be matched.
    InvalidPath = "invalid_path",
    /// A regular expression does not compile.
    InvalidRegex = "invalid_regex",
    /// A reference is not well formed.
    InvalidReference = "invalid_reference",
    /// A backend is incomplete, or names something that cannot be a backend.
    InvalidBackend = "invalid_backend",
    /// An object's own name or metadata cannot be used.
    InvalidObject = "invalid_object",
    /// A file or a document in it could not be read.
    UnreadableInput = "unreadable_input",
    /// A field that no version of the kind has.
    UnknownField = "unknown_field",
    /// An annotation with our prefix that nobody knows.
    UnknownAnnotation = "unknown_annotation",
    /// A ConfigMap key that nobody knows.
    UnknownSetting = "unknown_setting",
    /// A known annotation, setting or flag that is not built yet.
    NotSupported = "not_supported",
    /// What is meant to protect cannot be honoured: the route answers 503.
    ProtectionFailed = "protection_failed",
    /// The proxy in use cannot express it.
    ProxyCannot = "proxy_cannot",
    /// A key that does not belong there, for example a global setting among the parameters of a class.
    OutOfPlace = "out_of_place",
    /// An older object already serves the same host and path.
    ConflictLost = "conflict_lost",
    /// The class of an Ingress does not exist.
    ClassNotFound = "class_not_found",
    /// The class of an Ingress is another controller's. Told of objects from files only: in a cluster that is normal.
    ClassNotOurs = "class_not_ours",
    /// More than one IngressClass is marked as the default one.
    DefaultClassAmbiguous = "default_class_ambiguous",
    /// The parameters of an IngressClass are missing or of a kind that we do not read.
    ParametersNotFound = "parameters_not_found",
    /// A Service does not exist.
    ServiceNotFound = "service_not_found",
    /// A Service has no such port.
    PortNotFound = "port_not_found",
    /// A Service has no endpoint that is ready.
    NoEndpoints = "no_endpoints",
    /// An endpoint lies at an address that must not be reached through the proxy.
    EndpointRefused = "endpoint_refused",
    /// A ConfigMap does not exist.
    ConfigMapNotFound = "config_map_not_found",
    /// A resource backend of a kind that we do not serve.
    UnsupportedBackend = "unsupported_backend",
    /// A Secret does not exist.
    SecretNotFound = "secret_not_found",
    /// A Secret holds no usable certificate and key.
    InvalidCertificate = "invalid_certificate",
    /// A certificate does not cover the host.
    CertificateMismatch = "certificate_mismatch",
    /// A certificate has expired or is not valid yet.
    CertificateExpired = "certificate_expired",
    /// A host of `spec.tls` that no rule has.
    TlsHostUnused = "tls_host_unused",
    /// The proxy refused what this object brings; it is held back.
    HeldBack = "held_back",
    /// An object of the API server does not fit its kind.
    MalformedObject = "malformed_object",
    /// A watched namespace cannot be read.
    NamespaceUnreadable = "namespace_unreadable",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Something the author of an object should know.
///
/// `message` and `effect` together have four parts: what is wrong, with the text as given; where; what would be right;
/// what we did instead. They are written once, where the problem is found; texts of users in them went through
/// [`crate::value::shown`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Problem {
    /// Whose author must act.
    pub subject: Subject,
    /// Where in the object, as `kubectl explain` would write it: `spec.rules[0].host`. Empty: the object as a whole.
    pub field: String,
    /// How much of what the author wants is served.
    pub severity: Severity,
    /// The kind of problem.
    pub reason: Reason,
    /// What is wrong, with the text as given, and what would be right.
    pub message: String,
    /// What happens to traffic instead.
    pub effect: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)?;
        if !self.effect.is_empty() {
            write!(f, "; {}", self.effect)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_gives_the_subject_a_name() {
        for (path, name) in [
            ("examples/Fan_Out.yaml", "File fan-out.yaml"),
            ("-", "File file"),
            ("a/..data/", "File data"),
            ("", "File file"),
            ("ä\u{1b}[31m.yaml", "File 31m.yaml"),
        ] {
            assert_eq!(Subject::file(path).to_string(), name, "{path:?}");
        }
        assert!(Subject::file(&"x".repeat(1000)).object.name.as_str().len() <= 253);
    }
}
