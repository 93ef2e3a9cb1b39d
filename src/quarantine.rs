//! After the proxy refused a release for what it says: whose fault that is, and what to hold back.
//!
//! A state machine without IO. `reconcile` tells it what was refused and what the proxy answered, asks it whom to hold
//! back and what to have tested next, and does the rest. It never blames the environment, never anybody for what the
//! global part does, and never keeps a configuration from going live for longer than a dozen tests take. Settings for the whole proxy that it
//! refuses are held back too.

mod hunt;
mod parts;
mod search;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use self::hunt::{Hunt, Verdict};
use self::parts::Parts;
use self::settings::HeldSettings;
use crate::annotations::Globals;
use crate::model::ProxyConfig;
use crate::problem::{Kind, Problem, Reason, Severity, Subject};
use crate::snapshot::Snapshot;
use crate::translate::{Form, HeldBack};
use crate::value::reference::ObjectName;

/// Whom the proxy does not take, and the search for them.
#[derive(Default)]
pub struct Quarantine {
    held: BTreeMap<Subject, Held>,
    /// The last one is going on; the others wait for it.
    hunts: Vec<Hunt>,
    settings: Option<HeldSettings>,
    /// The global part itself was refused, in these words, and whatever the settings.
    global: Option<String>,
}

/// A configuration that the proxy was asked to take.
#[derive(Clone)]
pub struct Attempt {
    /// The configuration.
    pub config: Arc<ProxyConfig>,
    /// What it would have been with nobody held back.
    pub wish: Arc<ProxyConfig>,
    /// The objects it was made from.
    pub snapshot: Arc<Snapshot>,
}

/// What the proxy took last.
pub struct Good {
    /// The configuration.
    pub config: Arc<ProxyConfig>,
    /// The Ingresses in the form in which it took them.
    pub ingresses: BTreeMap<ObjectName, Arc<Ingress>>,
}

/// An object that is held back.
struct Held {
    /// What is served of it instead.
    form: Form,
    /// Whether the proxy has taken a release with that form.
    proven: bool,
    /// What it would have brought when it was refused: while that is the same, it is not tried again.
    wish: Arc<ProxyConfig>,
    /// The proxy's words.
    words: String,
    /// Whether it is only under suspicion.
    suspect: bool,
}

impl Quarantine {
    /// Whom translation is to leave out.
    pub fn held_back(&self) -> HeldBack {
        let tried = self.hunts.last().map_or(&[][..], Hunt::tried);
        let held = self.held.iter().filter(|(subject, _)| !tried.contains(subject));
        HeldBack(held.map(|(subject, held)| (subject.object.clone(), held.form.clone())).collect())
    }

    /// What is in force in place of the settings for the whole proxy, and in which words it refused those; `None`: they
    /// are taken.
    pub fn settings(&self) -> Option<(&Globals, &str)> {
        self.settings.as_ref().map(|held| (&held.instead, held.words.as_str()))
    }

    /// Whether publishing must wait: what is refused would be published again.
    pub fn blocks(&self) -> bool {
        self.hunts.last().is_some_and(Hunt::blocks)
    }

    /// Looks at what everybody would bring now if nobody were held back. Who would bring something else than what was
    /// refused is free again.
    pub fn review(&mut self, wish: &ProxyConfig) {
        self.settings.take_if(|held| !held.concerns(&wish.globals));
        let now = Parts::of(wish);
        let open = self.hunts.iter().flat_map(|hunt| hunt.open().map(|subject| (subject, &hunt.attempt.wish)));
        let held = self.held.iter().map(|(subject, held)| (subject, &held.wish));
        let mut refused: BTreeMap<*const ProxyConfig, (&ProxyConfig, BTreeSet<&Subject>)> = BTreeMap::new();
        for (subject, wish) in open.chain(held) {
            refused.entry(Arc::as_ptr(wish)).or_insert((wish, BTreeSet::new())).1.insert(subject);
        }
        let mut free = Vec::new();
        for (then, subjects) in refused.into_values() {
            let parts = Parts::of(then);
            let changed = |subject: &&&Subject| then.globals != wish.globals || !now.same(&parts, subject);
            free.extend(subjects.iter().filter(changed).map(|&subject| subject.clone()));
        }
        for subject in free {
            self.release(&subject);
        }
        self.hunts.retain(|hunt| !hunt.is_over());
    }

    /// The proxy refused a release for what it says, in these words; `left` is what of those that are held back stood in
    /// it, `blamed` the object that the line it named comes from.
    pub fn refused(
        &mut self,
        attempt: &Attempt,
        left: &HeldBack,
        blamed: Option<&Subject>,
        words: &str,
        good: Option<&Good>,
    ) {
        self.global = None;
        if let Some(subject) = blamed.filter(|subject| subject.kind == Kind::Ingress)
            && self.hold(subject, attempt, words, good, false)
        {
            self.hunts.iter_mut().for_each(|hunt| hunt.forget(subject));
            self.hunts.retain(|hunt| !hunt.is_over());
            return;
        }
        // What is left of somebody who is held back may be what is refused again; nobody else is blamed before that
        // is out of the way. While a search goes on, it is rather somebody whom it has not found yet.
        if self.hunts.is_empty() && self.leave_out(left) {
            return;
        }
        let parts = Parts::of(&attempt.config);
        let changed = good.map(|good| parts.changed_since(&Parts::of(&good.config)));
        if self.hunts.is_empty()
            && changed.as_ref().is_some_and(BTreeSet::is_empty)
            && good.is_some_and(|good| good.config.globals != attempt.config.globals)
        {
            // Nothing else has changed.
            return self.hold_settings(attempt, words, good);
        }
        if let Some(hunt) = self.hunts.last_mut() {
            let others = changed.iter().flatten().any(|subject| !hunt.tried().contains(subject));
            if hunt.refused(others) {
                self.conclude(good);
                return;
            }
        }
        let suspects = changed.filter(|changed| !changed.is_empty()).unwrap_or_else(|| parts.subjects());
        let suspects: BTreeSet<_> = suspects.into_iter().filter(|subject| !self.held.contains_key(subject)).collect();
        if suspects.is_empty() {
            self.hold_settings(attempt, words, good);
        } else {
            self.hunts.push(Hunt::new(attempt.clone(), words.to_owned(), suspects));
        }
    }

    /// The proxy took a release, which is `good` now; `left` is what of those that are held back stood in it.
    pub fn accepted(&mut self, left: &HeldBack, good: Option<&Good>) {
        self.global = None;
        for (subject, held) in &mut self.held {
            held.proven |= left.0.get(&subject.object) == Some(&held.form);
        }
        if let Some(hunt) = self.hunts.last_mut() {
            hunt.accepted();
        }
        self.conclude(good);
    }

    /// What to have tested next: the global part of this configuration, and what these objects bring to it.
    pub fn question(&self) -> Option<(&Arc<ProxyConfig>, BTreeSet<Subject>)> {
        let hunt = self.hunts.last()?;
        Some((&hunt.attempt.config, hunt.question()?))
    }

    /// What the proxy said of the test. `Err`: its words.
    pub fn answer(&mut self, tested: Result<(), String>, good: Option<&Good>) {
        let Some(hunt) = self.hunts.last_mut() else { return };
        if let Verdict::Global(words) = hunt.answer(tested) {
            let attempt = hunt.attempt.clone();
            self.hunts.pop();
            self.hold_settings(&attempt, &words, good);
        }
        self.conclude(good);
    }

    /// What people are told about the objects that are held back.
    pub fn problems(&self) -> Vec<Problem> {
        let told = |(subject, held): (&Subject, &Held)| {
            let what = if held.suspect { "may bring what the proxy refuses" } else { "brings what the proxy refuses" };
            let instead = match held.form {
                Form::Former(_) => "its last accepted form is served",
                Form::Closed => "its routes answer 503",
                Form::LeftOut => "nothing of it is served",
            };
            Problem {
                subject: subject.clone(),
                field: String::new(),
                severity: Severity::Rejected,
                reason: Reason::HeldBack,
                message: format!("{what}: {}", held.words),
                effect: format!("{instead} until it, or what it refers to, changes"),
            }
        };
        self.held.iter().map(told).collect()
    }

    /// The proxy's words about a global part that it refuses: nothing goes live until that changes.
    pub fn global(&self) -> Option<&str> {
        self.global.as_deref()
    }

    /// Holds and frees according to what the search knows by now.
    fn conclude(&mut self, good: Option<&Good>) {
        while let Some(hunt) = self.hunts.last() {
            let (attempt, words) = (hunt.attempt.clone(), hunt.words.clone());
            let (guilty, suspects) = (hunt.guilty(), hunt.suspects());
            let open: BTreeSet<Subject> = hunt.open().cloned().collect();
            let over = hunt.is_over();
            for subject in &suspects {
                if !self.held.contains_key(subject) {
                    self.hold(subject, &attempt, &words, good, true);
                }
            }
            for subject in &guilty {
                match self.held.get_mut(subject) {
                    Some(held) => held.suspect = false,
                    None => drop(self.hold(subject, &attempt, &words, good, false)),
                }
            }
            // Suspects of this search that are no longer open are innocent.
            let wish = &attempt.wish;
            self.held.retain(|subject, held| !held.suspect || open.contains(subject) || !Arc::ptr_eq(&held.wish, wish));
            if !over {
                return;
            }
            self.hunts.pop();
        }
    }

    /// Holds the settings for the whole proxy back, in favour of others if there are any left.
    fn hold_settings(&mut self, attempt: &Attempt, words: &str, good: Option<&Good>) {
        match HeldSettings::after(attempt, words, good) {
            Some(held) => self.settings = Some(held),
            None => self.global = Some(words.to_owned()),
        }
    }

    /// Holds one object back: first as it was last accepted, then closed, then not at all. `false`: nothing is left to
    /// be done.
    fn hold(&mut self, subject: &Subject, attempt: &Attempt, words: &str, good: Option<&Good>, suspect: bool) -> bool {
        let refused = attempt.snapshot.ingresses.get(&subject.object);
        let former = good.and_then(|good| good.ingresses.get(&subject.object));
        let form = match self.held.get(subject).map(|held| &held.form) {
            // The same object again would be refused again.
            None => former.filter(|former| Some(*former) != refused).cloned().map_or(Form::Closed, Form::Former),
            Some(Form::Former(_)) => Form::Closed,
            Some(Form::Closed) => Form::LeftOut,
            Some(Form::LeftOut) => return false,
        };
        let held = Held { form, proven: false, wish: attempt.wish.clone(), words: words.to_owned(), suspect };
        self.held.insert(subject.clone(), held);
        true
    }

    /// Leaves out those who stood closed in a release that was refused and in none that was taken. Whether there were
    /// any.
    fn leave_out(&mut self, left: &HeldBack) -> bool {
        let mut any = false;
        for (subject, held) in &mut self.held {
            let closed = held.form == Form::Closed && left.0.get(&subject.object) == Some(&Form::Closed);
            if closed && !held.proven {
                held.form = Form::LeftOut;
                any = true;
            }
        }
        any
    }

    fn release(&mut self, subject: &Subject) {
        self.held.remove(subject);
        self.hunts.iter_mut().for_each(|hunt| hunt.forget(subject));
    }
}
