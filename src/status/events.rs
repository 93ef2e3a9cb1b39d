//! Events: what became of an object, where its owner looks (`kubectl describe`).
//!
//! One Event per object and reason, whose note lists all details of that reason, told again only when that set
//! changed. Normal `Sync` when an Ingress is live that changed after the first outcome. All through a token bucket,
//! warnings first: a new leader must not write ten thousand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::problem::{Kind, Reason, Severity, Subject};
use crate::value::reference::ObjectName;

use super::{Outcome, PATIENCE, Version};

/// Events that may be written at once after a quiet time.
const BURST: u32 = 50;
/// One more every so often.
const REFILL: Duration = Duration::from_millis(200);
/// What waits for a token at most; the oldest `Sync` goes first.
const QUEUE: usize = 20_000;
/// The API's limit for a note, in bytes.
const NOTE: usize = 1024;

/// Writes Events while we lead.
pub struct Writer {
    recorder: Recorder,
    sync: bool,
}

impl Writer {
    /// Events appear as coming from `coxswain`, instance `pod`. Without `sync`, nothing is said of what went well.
    pub fn new(client: Client, pod: &str, sync: bool) -> Self {
        Self { recorder: recorder(client, pod), sync }
    }

    /// Runs for ever.
    pub async fn run(self, mut outcomes: watch::Receiver<Option<Arc<Outcome>>>, mut leads: watch::Receiver<bool>) {
        let mut told = Told::default();
        let mut queue = Queue::default();
        let mut bucket = Bucket::full();
        let mut tick = tokio::time::interval(REFILL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                changed = outcomes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(outcome) = outcomes.borrow_and_update().clone() {
                        told.compare(&outcome, &mut queue);
                    }
                }
                changed = leads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    leads.mark_unchanged();
                }
                _ = tick.tick(), if !queue.is_empty() => {}
            }
            if !*leads.borrow() {
                // The leader tells; what it already told need not be told again by whoever comes next, except problems.
                queue.forget_normal();
                continue;
            }
            if !self.sync {
                queue.forget_normal();
            }
            while let Some(note) = queue.next_if(|| *leads.borrow() && bucket.take()) {
                self.publish(&note).await;
            }
        }
    }

    async fn publish(&self, note: &Note) {
        let event = Event {
            type_: note.kind,
            reason: note.reason.clone(),
            note: Some(note.text.clone()),
            action: note.action.to_owned(),
            secondary: None,
        };
        let reference = reference(&note.subject);
        match tokio::time::timeout(PATIENCE, self.recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(subject = %note.subject, %error, "an Event could not be written"),
            Err(_) => tracing::warn!(subject = %note.subject, "the API server does not take an Event"),
        }
    }
}

/// Tells on a replica's own Pod what is wrong with that replica alone, whoever leads.
pub struct PodVoice {
    recorder: Recorder,
    pod: ObjectReference,
    said: Vec<String>,
}

impl PodVoice {
    /// For the Pod of this name and namespace.
    pub fn new(client: Client, pod: &ObjectName) -> Self {
        let subject = Subject { kind: Kind::Pod, object: pod.clone(), uid: None };
        Self { recorder: recorder(client, pod.name.as_str()), pod: reference(&subject), said: Vec::new() }
    }

    /// Says what is wrong, if that has changed; for a moment's silence in between nothing is said.
    pub async fn say(&mut self, faults: &[String]) {
        if faults == self.said {
            return;
        }
        self.said = faults.to_vec();
        if faults.is_empty() {
            return;
        }
        let event = Event {
            type_: EventType::Warning,
            reason: "ProxyNotCurrent".to_owned(),
            note: Some(cut(faults)),
            action: "Reload".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &self.pod).await {
            tracing::warn!(%error, "an Event on our own Pod could not be written");
        }
    }
}

fn recorder(client: Client, pod: &str) -> Recorder {
    Recorder::new(client, Reporter { controller: "coxswain".to_owned(), instance: Some(pod.to_owned()) })
}

/// One Event to be.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Note {
    subject: Subject,
    kind: EventType,
    reason: String,
    action: &'static str,
    text: String,
}

impl Note {
    /// What it is about: one Event each.
    fn key(&self) -> (Subject, String) {
        (self.subject.clone(), self.reason.clone())
    }
}

/// What has been told of every object.
#[derive(Default)]
struct Told {
    problems: BTreeMap<(Subject, Reason), String>,
    live: Option<BTreeMap<ObjectName, Version>>,
}

impl Told {
    fn compare(&mut self, outcome: &Outcome, queue: &mut Queue) {
        let mut problems: BTreeMap<(Subject, Reason), (Severity, Vec<String>)> = BTreeMap::new();
        for problem in outcome.problems.iter().filter(|problem| problem.subject.kind != Kind::File) {
            let key = (problem.subject.clone(), problem.reason);
            let (severity, lines) = problems.entry(key).or_insert((problem.severity, Vec::new()));
            *severity = (*severity).min(problem.severity);
            let place = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
            lines.push(format!("{place}{}; {}", problem.message, problem.effect));
        }
        let mut now = BTreeMap::new();
        for ((subject, reason), (severity, mut lines)) in problems {
            lines.sort();
            lines.dedup();
            let text = cut(&lines);
            if self.problems.get(&(subject.clone(), reason)) != Some(&text) {
                let kind = if severity == Severity::Notice { EventType::Normal } else { EventType::Warning };
                let note = Note {
                    subject: subject.clone(),
                    kind,
                    reason: reason.to_string(),
                    action: "Translate",
                    text: text.clone(),
                };
                queue.push(note);
            }
            now.insert((subject, reason), text);
        }
        self.problems = now;
        self.compare_live(outcome, queue);
    }

    fn compare_live(&mut self, outcome: &Outcome, queue: &mut Queue) {
        // What was there at the start and has an address has been told by whoever led before: a restart writes nothing.
        let at_start = || outcome.ours.iter().filter(|(name, _)| !outcome.unaddressed.contains(*name));
        let before = self.live.get_or_insert_with(|| at_start().map(|(n, v)| (n.clone(), v.clone())).collect());
        let live = outcome.ours.iter().filter(|(name, _)| !outcome.pending.contains(*name));
        for (name, version) in live {
            if before.get(name) != Some(version) {
                before.insert(name.clone(), version.clone());
                queue.push(Note {
                    subject: Subject { kind: Kind::Ingress, object: name.clone(), uid: version.uid.clone() },
                    kind: EventType::Normal,
                    reason: "Sync".to_owned(),
                    action: "Reload",
                    text: "is live in the proxy".to_owned(),
                });
            }
        }
        before.retain(|name, _| outcome.ours.contains_key(name));
    }
}

/// What waits to be written, in the order of arrival.
#[derive(Default)]
struct Queue {
    warnings: BTreeMap<u64, Note>,
    normal: BTreeMap<u64, Note>,
    /// Where the note about a subject and a reason stands.
    places: BTreeMap<(Subject, String), u64>,
    next: u64,
}

impl Queue {
    fn push(&mut self, note: Note) {
        let place = self.next;
        self.next += 1;
        // A newer text of the same thing replaces the one that was not written yet.
        if let Some(former) = self.places.insert(note.key(), place) {
            self.warnings.remove(&former);
            self.normal.remove(&former);
        }
        let queue = if note.kind == EventType::Warning { &mut self.warnings } else { &mut self.normal };
        queue.insert(place, note);
        if self.places.len() > QUEUE {
            let oldest = self.normal.pop_first().or_else(|| self.warnings.pop_first());
            oldest.and_then(|(_, note)| self.places.remove(&note.key()));
        }
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Forgets what went well.
    fn forget_normal(&mut self) {
        for note in std::mem::take(&mut self.normal).into_values() {
            self.places.remove(&note.key());
        }
    }

    fn next_if(&mut self, mut may: impl FnMut() -> bool) -> Option<Note> {
        if self.is_empty() || !may() {
            return None;
        }
        let (_, note) = self.warnings.pop_first().or_else(|| self.normal.pop_first())?;
        self.places.remove(&note.key());
        Some(note)
    }
}

/// A token bucket.
struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    fn full() -> Self {
        Self { tokens: BURST, since: Instant::now() }
    }

    fn take(&mut self) -> bool {
        while self.tokens < BURST && self.since.elapsed() >= REFILL {
            self.tokens += 1;
            self.since += REFILL;
        }
        if self.tokens == BURST {
            self.since = Instant::now();
        }
        let some = self.tokens > 0;
        self.tokens -= u32::from(some);
        some
    }
}

/// All lines, or as many as fit, with the number of the others.
fn cut(lines: &[String]) -> String {
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        let rest = format!("\n(and {} more)", lines.len() - n);
        let separator = if n == 0 { "" } else { "\n" };
        if text.len() + separator.len() + line.len() + rest.len() > NOTE {
            if n == 0 {
                let end = line.floor_char_boundary(NOTE - rest.len() - 4);
                text = format!("{}…", &line[..end]);
            } else {
                text.push_str(&rest);
            }
            return text;
        }
        text.push_str(separator);
        text.push_str(line);
    }
    text
}

fn reference(subject: &Subject) -> ObjectReference {
    let version = match subject.kind {
        Kind::Ingress | Kind::IngressClass => "networking.k8s.io/v1",
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        _ => "v1",
    };
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(subject.kind.to_string()),
        name: Some(subject.object.name.to_string()),
        namespace: subject.object.namespace.as_ref().map(ToString::to_string),
        uid: subject.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;
    use crate::value::Value as _;

    fn problem(name: &str, reason: Reason, message: &str) -> Problem {
        Problem {
            subject: Subject { kind: Kind::Ingress, object: ObjectName::parse(name).unwrap(), uid: None },
            field: "spec".to_owned(),
            severity: Severity::Degraded,
            reason,
            message: message.to_owned(),
            effect: "503".to_owned(),
        }
    }

    fn outcome(problems: Vec<Problem>, ours: &[(&str, u64)]) -> Outcome {
        let version = |content: u64| Version { uid: None, content };
        let ours = ours.iter().map(|(name, n)| (ObjectName::parse(name).unwrap(), version(*n))).collect();
        Outcome { ours, problems, ..Outcome::default() }
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.next_if(|| true))
            .map(|note| format!("{} {} {}", note.subject, note.reason, note.text))
            .collect()
    }

    #[test]
    fn details_of_one_reason_are_one_event_and_are_told_again_only_when_they_change() {
        let (mut told, mut queue) = (Told::default(), Queue::default());
        let both = vec![problem("a/b", Reason::InvalidValue, "x"), problem("a/b", Reason::InvalidValue, "y")];
        told.compare(&outcome(both.clone(), &[]), &mut queue);
        assert_eq!(drain(&mut queue), ["Ingress a/b InvalidValue spec: x; 503\nspec: y; 503"]);
        told.compare(&outcome(both, &[]), &mut queue);
        assert_eq!(drain(&mut queue), [""; 0]);
        told.compare(&outcome(vec![problem("a/b", Reason::InvalidValue, "x")], &[]), &mut queue);
        assert_eq!(drain(&mut queue), ["Ingress a/b InvalidValue spec: x; 503"]);
    }

    #[test]
    fn a_start_tells_no_sync_and_a_change_does() {
        let (mut told, mut queue) = (Told::default(), Queue::default());
        told.compare(&outcome(vec![], &[("a/b", 1), ("a/c", 1)]), &mut queue);
        assert_eq!(drain(&mut queue), [""; 0]);
        told.compare(&outcome(vec![], &[("a/b", 2), ("a/c", 1), ("a/d", 1)]), &mut queue);
        assert_eq!(
            drain(&mut queue),
            ["Ingress a/b Sync is live in the proxy", "Ingress a/d Sync is live in the proxy"]
        );
    }

    #[test]
    fn what_came_while_nobody_led_is_told_at_the_start() {
        let (mut told, mut queue) = (Told::default(), Queue::default());
        let mut first = outcome(vec![], &[("a/b", 1), ("a/c", 1)]);
        first.unaddressed.insert(ObjectName::parse("a/c").unwrap());
        told.compare(&first, &mut queue);
        assert_eq!(drain(&mut queue), ["Ingress a/c Sync is live in the proxy"]);
    }

    #[test]
    fn what_is_pending_is_told_when_it_is_live() {
        let (mut told, mut queue) = (Told::default(), Queue::default());
        told.compare(&outcome(vec![], &[]), &mut queue);
        let mut pending = outcome(vec![], &[("a/b", 1)]);
        pending.pending.insert(ObjectName::parse("a/b").unwrap());
        told.compare(&pending, &mut queue);
        assert_eq!(drain(&mut queue), [""; 0]);
        told.compare(&outcome(vec![], &[("a/b", 1)]), &mut queue);
        assert_eq!(drain(&mut queue), ["Ingress a/b Sync is live in the proxy"]);
    }

    #[test]
    fn warnings_go_first() {
        let (mut told, mut queue) = (Told::default(), Queue::default());
        told.compare(&outcome(vec![], &[]), &mut queue);
        told.compare(&outcome(vec![problem("z/z", Reason::NoEndpoints, "n")], &[("a/b", 1)]), &mut queue);
        assert!(drain(&mut queue)[0].starts_with("Ingress z/z NoEndpoints"));
    }

    #[test]
    fn a_newer_text_replaces_the_one_that_waits_and_the_oldest_good_news_goes_first_when_there_is_no_room() {
        let mut queue = Queue::default();
        let note = |name: &str, kind, text: &str| Note {
            subject: Subject { kind: Kind::Ingress, object: ObjectName::parse(name).unwrap(), uid: None },
            kind,
            reason: "R".to_owned(),
            action: "Translate",
            text: text.to_owned(),
        };
        queue.push(note("a/b", EventType::Warning, "old"));
        queue.push(note("a/b", EventType::Normal, "new"));
        assert_eq!(drain(&mut queue), ["Ingress a/b R new"]);
        queue.push(note("a/bad", EventType::Warning, "x"));
        (0..QUEUE).for_each(|n| queue.push(note(&format!("a/n{n}"), EventType::Normal, "x")));
        let left = drain(&mut queue);
        assert_eq!((left.len(), &*left[0], &*left[1]), (QUEUE, "Ingress a/bad R x", "Ingress a/n1 R x"));
        assert!(queue.is_empty());
    }

    #[test]
    fn notes_fit_the_apis_limit() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n} {}", "x".repeat(40))).collect();
        let text = cut(&lines);
        assert!(text.len() <= NOTE && text.contains("more)"), "{}", text.len());
        assert!(cut(&["ä".repeat(2000)]).len() <= NOTE);
        assert_eq!(cut(&["a".to_owned(), "b".to_owned()]), "a\nb");
    }

    #[tokio::test(start_paused = true)]
    async fn the_bucket_lets_a_burst_through_and_then_five_a_second() {
        let mut bucket = Bucket::full();
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 50);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 10);
    }
}
