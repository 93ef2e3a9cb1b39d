//! The objects from files (`-f`): which files there are, what was last read from each, and the snapshot of all.
//!
//! From text to objects is [`document`]'s work; this module owns the rules between files: a file that breaks keeps its
//! former objects, a file that goes takes them along, of two objects of one name the later one counts, and an Ingress
//! without a class gets the default one, as the API server would have done.

mod document;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use sha2::{Digest as _, Sha256};

use self::document::{Broken, Object, Parsed};
use crate::hint::Stamp;
use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::snapshot::{Origin, Snapshot};
use crate::value::reference::ObjectName;
use crate::value::shown;

/// Reads all files once. What is wrong with them is in the snapshot's problems.
pub fn load(paths: &[PathBuf]) -> Snapshot {
    let mut files = Files::new(paths.to_vec());
    files.look();
    files.snapshot()
}

/// The paths of `-f`, and what was last read from each file below them.
pub struct Files {
    paths: Vec<PathBuf>,
    states: BTreeMap<PathBuf, State>,
    /// Files in the order in which they count, as of the last look.
    order: Vec<PathBuf>,
    /// What is wrong with the paths themselves.
    problems: Vec<Problem>,
}

/// What is known of one file.
#[derive(Default)]
struct State {
    /// The file as it was when its content was read; `None` while it is too young to be told from a later writing.
    stamp: Option<Stamp>,
    /// A hash of what was last read of it; `None` after it could not be.
    text: Option<[u8; 32]>,
    parsed: Parsed,
    /// Why the file as it lies there is not in force.
    problem: Option<Problem>,
    /// Standard input and pipes: can be read once only.
    once: bool,
}

impl Files {
    /// The files and directories to read; `-` is standard input. Nothing is read yet.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, states: BTreeMap::new(), order: Vec::new(), problems: Vec::new() }
    }

    /// The paths as given, for whoever watches them.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Looks at all files and reads those that may have changed. Tells whether the snapshot may now be another one.
    pub fn look(&mut self) -> bool {
        let before = (std::mem::take(&mut self.order), std::mem::take(&mut self.problems));
        for path in self.paths.clone() {
            match listed(&path) {
                Ok(files) => self.order.extend(files),
                Err(error) => self.unlisted(&path, &error, &before.0),
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        self.order.retain(|file| seen.insert(file.clone()));
        self.states.retain(|file, _| seen.contains(file));
        let mut changed = false;
        for file in &self.order {
            changed |= self.states.entry(file.clone()).or_default().look(file);
        }
        changed || before.0 != self.order || before.1 != self.problems
    }

    /// All objects and all problems as of the last look.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { origin: Origin::Files, problems: self.problems.clone(), ..Snapshot::default() };
        let mut classes = BTreeMap::new();
        let mut origins: BTreeMap<(Kind, &ObjectName), &Path> = BTreeMap::new();
        for file in &self.order {
            let Some(state) = self.states.get(file) else { continue };
            snapshot.problems.extend(state.problem.clone());
            snapshot.problems.extend(state.parsed.problems.iter().cloned());
            for (name, object) in &state.parsed.objects {
                match origins.entry((object.kind(), name)) {
                    Entry::Vacant(entry) => {
                        entry.insert(file);
                    }
                    Entry::Occupied(mut entry) => {
                        snapshot.problems.push(defined_twice(object.subject(name), entry.get(), file));
                        entry.insert(file);
                    }
                }
                let name = name.clone();
                match object {
                    Object::Ingress(object) => drop(snapshot.ingresses.insert(name, object.clone())),
                    Object::IngressClass(object) => drop(classes.insert(name, object.clone())),
                    Object::Service(object) => drop(snapshot.services.insert(name, object.clone())),
                    Object::EndpointSlice(object) => drop(snapshot.endpoint_slices.insert(name, object.clone())),
                    Object::Secret(object) => drop(snapshot.secrets.insert(name, object.clone())),
                    Object::ConfigMap(object) => drop(snapshot.config_maps.insert(name, object.clone())),
                }
            }
        }
        fill_in_default_class(&mut snapshot.ingresses, &classes, &mut snapshot.problems);
        snapshot.ingress_classes = (!classes.is_empty()).then_some(classes);
        snapshot
    }

    /// A path that cannot be listed: what is gone is gone, but what merely cannot be read stays in force.
    fn unlisted(&mut self, path: &Path, error: &io::Error, former: &[PathBuf]) {
        let gone = error.kind() == io::ErrorKind::NotFound;
        let effect = if gone { "nothing comes from there" } else { "the objects last read from there stay in force" };
        if !gone {
            self.order.extend(former.iter().filter(|file| file.starts_with(path)).cloned());
        }
        self.problems.push(unreadable(path, "", &format!("cannot be read: {error}"), effect));
    }
}

impl State {
    /// Reads the file if it may have changed, and tells whether anything did.
    fn look(&mut self, file: &Path) -> bool {
        if self.once {
            return false;
        }
        let stamp = if is_stdin(file) { Ok(None) } else { fs::metadata(file).map(|m| settled(&m)) };
        if matches!(stamp, Ok(Some(stamp)) if self.stamp == Some(stamp)) {
            return false;
        }
        self.stamp = None;
        match stamp.and_then(|stamp| Ok((stamp, self.read(file)?))) {
            Err(error) => {
                self.text = None;
                self.fail(unreadable(file, "", &format!("cannot be read: {error}"), FORMER))
            }
            Ok((stamp, text)) => {
                self.stamp = stamp;
                let hash = Some(Sha256::digest(&text).into());
                if self.text == hash {
                    return false;
                }
                self.text = hash;
                self.parse(file, &text)
            }
        }
    }

    fn read(&mut self, file: &Path) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        if is_stdin(file) {
            self.once = true;
            io::stdin().lock().read_to_end(&mut text)?;
        } else {
            let mut opened = fs::File::open(file)?;
            self.once = !opened.metadata()?.is_file();
            opened.read_to_end(&mut text)?;
        }
        Ok(text)
    }

    fn parse(&mut self, file: &Path, text: &[u8]) -> bool {
        match document::parse(&label(file), text) {
            Ok(parsed) => {
                self.parsed = parsed;
                self.problem = None;
                true
            }
            Err(Broken { line, column, message }) => {
                let field = format!(":{line}:{column}");
                let message = format!("cannot be parsed: line {line}, column {column}: {message}");
                self.fail(unreadable(file, &field, &message, FORMER))
            }
        }
    }

    fn fail(&mut self, problem: Problem) -> bool {
        let problem = Some(problem);
        let changed = self.problem != problem;
        self.problem = problem;
        changed
    }
}

/// `None` for what is no regular file, and for one so young that a further writing could leave the same stamp.
fn settled(metadata: &fs::Metadata) -> Option<Stamp> {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok())?;
    (metadata.is_file() && age > Duration::from_secs(2)).then(|| Stamp::of(metadata))
}

const FORMER: &str = "the objects last read from it stay in force";

/// The files that a path of `-f` stands for: itself, or the manifests directly in it, as kubectl takes them.
fn listed(path: &Path) -> io::Result<Vec<PathBuf>> {
    if is_stdin(path) || !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        // A link that leads nowhere counts as a file, so that it is told; a directory or a pipe does not.
        if manifest && !hidden && fs::metadata(&file).map_or(true, |metadata| metadata.is_file()) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// A path as people are shown it: nothing in it can drive a terminal.
fn label(path: &Path) -> String {
    if is_stdin(path) {
        return "standard input".to_owned();
    }
    let text = path.to_string_lossy();
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '\\';
    if text.chars().all(plain) && text.len() <= 100 { text.into_owned() } else { shown(&text) }
}

fn unreadable(path: &Path, place: &str, message: &str, effect: &str) -> Problem {
    let label = label(path);
    Problem {
        subject: Subject::file(&path.to_string_lossy()),
        field: format!("{label}{place}"),
        severity: Severity::Rejected,
        reason: Reason::UnreadableInput,
        message: format!("{label} {message}"),
        effect: effect.to_owned(),
    }
}

fn defined_twice(subject: Subject, first: &Path, second: &Path) -> Problem {
    let (first, second) = (label(first), label(second));
    let places = if first == second { format!("twice in {first}") } else { format!("in {first} and in {second}") };
    Problem {
        subject,
        field: String::new(),
        severity: Severity::Degraded,
        reason: Reason::InvalidObject,
        message: format!("is defined {places}; there must be one of each name"),
        effect: "the later one is used".to_owned(),
    }
}

/// What the API server's admission does when an Ingress is created without a class.
fn fill_in_default_class(
    ingresses: &mut BTreeMap<ObjectName, Arc<Ingress>>,
    classes: &BTreeMap<ObjectName, Arc<IngressClass>>,
    problems: &mut Vec<Problem>,
) {
    const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
    let marked = |class: &IngressClass| {
        class.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT)).is_some_and(|value| value == "true")
    };
    let marked: Vec<_> = classes.iter().filter(|(_, class)| marked(class)).collect();
    let [(default, _)] = marked[..] else {
        let names: Vec<String> = marked.iter().map(|(name, _)| name.to_string()).collect();
        problems.extend(marked.iter().map(|(name, class)| Problem {
            subject: document::subject(Kind::IngressClass, name, &class.metadata),
            field: format!("metadata.annotations[{DEFAULT}]"),
            severity: Severity::Degraded,
            reason: Reason::DefaultClassAmbiguous,
            message: format!("{} are all marked as the default class; exactly one must be", names.join(", ")),
            effect: "an Ingress without a class gets none".to_owned(),
        }));
        return;
    };
    for ingress in ingresses.values_mut() {
        let annotations = ingress.metadata.annotations.as_ref();
        let legacy = annotations.is_some_and(|a| a.contains_key("kubernetes.io/ingress.class"));
        let named = ingress.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some());
        if !legacy && !named {
            let spec = Arc::make_mut(ingress).spec.get_or_insert_default();
            spec.ingress_class_name = Some(default.name.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
