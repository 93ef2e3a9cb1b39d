//! From the text of one file to objects: YAML or JSON, documents, `List`s, and the defaults of the API server.
//!
//! A text that cannot be parsed is one error for the whole file; a document that is no good object is a problem of its
//! own and harms no other.

mod kinds;
mod typed;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value as Json;

use self::typed::Typed;
use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::snapshot::TlsSecret;
use crate::value::reference::{Name, ObjectName};
use crate::value::{Value as _, shown};

/// What a file holds.
#[derive(Default)]
pub struct Parsed {
    /// The objects of kinds that we read, in the order of the file.
    pub objects: Vec<(ObjectName, Object)>,
    /// What is wrong with single documents and fields.
    pub problems: Vec<Problem>,
}

/// An object of a kind that we read.
pub enum Object {
    Ingress(Arc<Ingress>),
    IngressClass(Arc<IngressClass>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Secret(Arc<TlsSecret>),
    ConfigMap(Arc<ConfigMap>),
}

/// Why a whole file cannot be used. Lines and columns count from 1.
#[derive(Debug, Eq, PartialEq)]
pub struct Broken {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
    /// What is wrong there.
    pub message: String,
}

/// Parses a file. `label` is how people are shown its path.
pub fn parse(label: &str, text: &[u8]) -> Result<Parsed, Broken> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let good = &text[..error.valid_up_to()];
        let line = good.iter().filter(|&&b| b == b'\n').count() as u64 + 1;
        let column = good.iter().rev().take_while(|&&b| b != b'\n').count() as u64 + 1;
        Broken { line, column, message: "this is not UTF-8".to_owned() }
    })?;
    if text.trim_start().starts_with(['{', '[']) {
        // `{` begins a flow mapping of YAML as well: what is no JSON may still be that.
        if let Some(parsed) = json(label, text) {
            return Ok(parsed);
        }
    }
    yaml(label, text)
}

/// The object as somebody to be told something.
pub fn subject(kind: Kind, name: &ObjectName, metadata: &ObjectMeta) -> Subject {
    Subject { kind, object: name.clone(), uid: metadata.uid.clone() }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ingress(_) => Kind::Ingress,
            Self::IngressClass(_) => Kind::IngressClass,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
            Self::ConfigMap(_) => Kind::ConfigMap,
        }
    }

    /// The object as somebody to be told something.
    pub fn subject(&self, name: &ObjectName) -> Subject {
        let uid = match self {
            Self::Ingress(object) => &object.metadata.uid,
            Self::IngressClass(object) => &object.metadata.uid,
            Self::Service(object) => &object.metadata.uid,
            Self::EndpointSlice(object) => &object.metadata.uid,
            Self::Secret(object) => &object.uid,
            Self::ConfigMap(object) => &object.metadata.uid,
        };
        Subject { kind: self.kind(), object: name.clone(), uid: uid.clone() }
    }
}

/// Document by document: in the form of [`Json`] a text takes many times its length.
fn yaml(label: &str, text: &str) -> Result<Parsed, Broken> {
    let mut parsed = Parsed::default();
    for (line, chunk) in chunks(text) {
        let options = serde_saphyr::options! { with_snippet: false, budget: Some(budget(chunk)) };
        let documents = serde_saphyr::from_multiple_with_options::<Json>(chunk, options);
        let documents = documents.map_err(|error| {
            let at = error.location();
            let (row, column) = at.map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
            Broken { line: line + row - 1, column, message: words(&error) }
        })?;
        for value in documents {
            Place { label, line }.read(value, &mut parsed);
        }
    }
    Ok(parsed)
}

/// Limits that no text can reach by its length alone; those on aliases, which make much out of little, stay.
fn budget(text: &str) -> serde_saphyr::Budget {
    let mut budget = serde_saphyr::Budget::default();
    let most = text.len().saturating_mul(2).saturating_add(1000);
    budget.max_events = most;
    budget.max_nodes = most;
    budget.max_documents = most;
    budget.max_total_scalar_bytes = most.max(budget.max_total_scalar_bytes);
    budget
}

fn json(label: &str, text: &str) -> Option<Parsed> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Json>();
    let mut parsed = Parsed::default();
    let mut line = 1;
    let mut counted = 0;
    loop {
        let begin = text.len() - text[stream.byte_offset()..].trim_start().len();
        line += text[counted..begin].matches('\n').count() as u64;
        counted = begin;
        match stream.next() {
            None => return Some(parsed),
            Some(value) => Place { label, line }.read(value.ok()?, &mut parsed),
        }
    }
}

/// Cuts at `---`, which ends a document wherever it stands at the beginning of a line, so that limits count for each
/// document and not for a file of ten thousand. What stands before the first one stays with it if it holds directives.
fn chunks(text: &str) -> Vec<(u64, &str)> {
    let mut chunks = Vec::new();
    let (mut begin, mut begin_line, mut only_head) = (0, 1, true);
    let mut offset = 0;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            if !only_head {
                chunks.push((begin_line, &text[begin..offset]));
                (begin, begin_line) = (offset, n as u64 + 1);
            }
            only_head = false;
        } else {
            only_head &= line.trim().is_empty() || line.starts_with(['#', '%']);
        }
        offset += line.len();
    }
    chunks.push((begin_line, &text[begin..]));
    chunks
}

/// The parser's words without the place, which is told beside them, on one line and with an end.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.rfind(" at line ").map_or(text, |end| &text[..end]);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Where a document stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    label: &'a str,
    line: u64,
}

impl Place<'_> {
    fn read(self, value: Json, into: &mut Parsed) {
        if value.is_null() {
            return;
        }
        let text = |key: &str| value.get(key).and_then(Json::as_str).map(str::to_owned);
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            let message = "is no Kubernetes object; it must be a mapping with `apiVersion` and `kind`";
            into.problems.push(self.skipped(None, "", message.to_owned()));
            return;
        };
        if kind.ends_with("List") && value.get("items").is_some_and(Json::is_array) {
            self.read_list(value, &version, &kind, into);
            return;
        }
        match (group(&version), kind.as_str()) {
            ("networking.k8s.io" | "extensions", "Ingress") => self.object::<Ingress>(value, Kind::Ingress, into),
            ("networking.k8s.io", "IngressClass") => self.object::<IngressClass>(value, Kind::IngressClass, into),
            ("", "Service") => self.object::<Service>(value, Kind::Service, into),
            ("discovery.k8s.io", "EndpointSlice") => self.object::<EndpointSlice>(value, Kind::EndpointSlice, into),
            ("", "Secret") => self.object::<Secret>(value, Kind::Secret, into),
            ("", "ConfigMap") => self.object::<ConfigMap>(value, Kind::ConfigMap, into),
            _ => {}
        }
    }

    /// The items of a `List` bring their own kind; those of an `IngressList` need not.
    fn read_list(self, mut value: Json, version: &str, kind: &str, into: &mut Parsed) {
        let Some(Json::Array(items)) = value.get_mut("items").map(Json::take) else { return };
        for mut item in items {
            if let (Json::Object(item), Some(kind)) = (&mut item, kind.strip_suffix("List").filter(|k| !k.is_empty())) {
                item.entry("apiVersion").or_insert_with(|| version.into());
                item.entry("kind").or_insert_with(|| kind.into());
            }
            self.read(item, into);
        }
    }

    fn object<K: Typed>(self, value: Json, kind: Kind, into: &mut Parsed) {
        let name = name(&value, kind);
        let subject = name.as_ref().ok().map(|name| Subject { kind, object: name.clone(), uid: None });
        let version = value.get("apiVersion").and_then(Json::as_str).unwrap_or_default();
        if version != K::API_VERSION {
            let given = shown(version);
            let message = format!("has the apiVersion {given}, which is not read here; it must be {}", K::API_VERSION);
            into.problems.push(self.skipped(subject, "apiVersion", message));
            return;
        }
        let name = match name {
            Ok(name) => name,
            Err((field, message)) => {
                into.problems.push(self.skipped(None, &field, message));
                return;
            }
        };
        match typed::read::<K>(value) {
            Err(misfit) => into.problems.push(self.skipped(subject, &misfit.field, misfit.message)),
            Ok((mut object, leftovers)) => {
                object.metadata_mut().namespace = name.namespace.as_ref().map(Name::to_string);
                object.fill_in();
                let object = object.into_object();
                let subject = object.subject(&name);
                into.problems.extend(leftovers.into_iter().map(|field| self.unknown_field(&subject, field)));
                into.objects.push((name, object));
            }
        }
    }

    fn unknown_field(self, subject: &Subject, field: String) -> Problem {
        let kind = subject.kind;
        Problem {
            subject: subject.clone(),
            message: format!("{self}: no {kind} has a field `{field}`; it must be one that the API knows"),
            field,
            severity: Severity::Degraded,
            reason: Reason::UnknownField,
            effect: "the field is ignored".to_owned(),
        }
    }

    /// A document that is not used. Told to the object if it has a name, else to the file. `message` goes on from "the
    /// document".
    fn skipped(self, subject: Option<Subject>, field: &str, message: String) -> Problem {
        let reason = if subject.is_some() { Reason::MalformedObject } else { Reason::UnreadableInput };
        Problem {
            subject: subject.unwrap_or_else(|| Subject::file(self.label)),
            field: field.to_owned(),
            severity: Severity::Rejected,
            reason,
            message: format!("{self}: the document {message}"),
            effect: "it is skipped, the others are served".to_owned(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, from line {}", self.label, self.line)
    }
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Namespace and name of a document: `default` where none is given, none for kinds that have none.
fn name(value: &Json, kind: Kind) -> Result<ObjectName, (String, String)> {
    let part = |key: &str| match value.pointer(&format!("/metadata/{key}")) {
        None | Some(Json::Null) => Ok(None),
        Some(part) => {
            let text = part.as_str().map_or_else(|| part.to_string(), str::to_owned);
            let field = format!("metadata.{key}");
            let wrong = |wrong| (field, format!("has the {key} {}, which {wrong}", shown(&text)));
            Name::parse(&text).map(Some).map_err(|invalid| wrong(invalid.to_string()))
        }
    };
    let name = part("name")?
        .ok_or_else(|| ("metadata.name".to_owned(), "has no name; it must have `metadata.name`".to_owned()))?;
    if kind == Kind::IngressClass {
        return Ok(ObjectName::cluster(name));
    }
    let Ok(default) = Name::parse("default") else { unreachable!("`default` is a name") };
    Ok(ObjectName::new(part("namespace")?.unwrap_or(default), name))
}
