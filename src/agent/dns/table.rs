//! Who waits for what: which question is answered at once and which is held until its answer changes.
//!
//! One table belongs to one start or reload of the proxy. It knows names, ids of questions and versions of answers;
//! what is asked and answered, and over which socket, is nothing to it. Time comes in from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// How long a question is held at most, and the span over which the ends are spread, so that questions that came
/// together are not all asked again together. nginx forgets the addresses behind the names of an answer 30 s after it
/// last used them.
const LONGEST_HOLD: Duration = Duration::from_secs(25);
const SPREAD: Duration = Duration::from_secs(5);

/// The questions of one client. `R` is where the answer to a question goes.
pub(super) struct Table<R> {
    names: BTreeMap<String, Name<R>>,
    /// When held questions end.
    ends: BTreeSet<(Instant, String)>,
}

struct Name<R> {
    /// The last answer this client was given.
    answered: Option<Answered>,
    held: Option<Held<R>>,
}

#[derive(Clone, Copy)]
struct Answered {
    id: u16,
    version: u64,
}

/// A question that waits for its answer.
pub(super) struct Held<R> {
    /// Its id.
    pub(super) id: u16,
    /// Where the answer goes.
    pub(super) reply: R,
    ends: Instant,
}

impl<R> Table<R> {
    pub(super) fn new() -> Self {
        Self { names: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// Takes a question for `name`, whose answer has this version now (`None`: there is none yet). Gives it back if it
    /// is to be answered at once: the first of its name, one whose answer has changed, and a repeat of the last one
    /// answered (the answer was lost). All others are held; a repeat of a held one replaces it.
    pub(super) fn ask(&mut self, name: &str, id: u16, reply: R, version: Option<u64>, now: Instant) -> Option<R> {
        let entry = self.names.entry(name.to_owned()).or_insert(Name { answered: None, held: None });
        let former = entry.held.take();
        if let Some(former) = &former {
            self.ends.remove(&(former.ends, name.to_owned()));
        }
        if let Some(version) = version
            && entry.answered.is_none_or(|last| last.id == id || last.version != version)
        {
            entry.answered = Some(Answered { id, version });
            return Some(reply);
        }
        // nginx repeats a question every five seconds: a repeat that began a hold of its own would never end. The id is
        // random: it spreads well enough.
        let ends = former.filter(|former| former.id == id).map_or_else(
            || now + LONGEST_HOLD - SPREAD.mul_f64(f64::from(id) / f64::from(u16::MAX)),
            |former| former.ends,
        );
        self.ends.insert((ends, name.to_owned()));
        entry.held = Some(Held { id, reply, ends });
        None
    }

    /// The question that was held for `name`, if `version` is news to this client: it is to be answered now.
    pub(super) fn changed(&mut self, name: &str, version: u64) -> Option<Held<R>> {
        let entry = self.names.get_mut(name)?;
        if entry.answered.is_some_and(|last| last.version == version) {
            return None;
        }
        let held = entry.held.take()?;
        entry.answered = Some(Answered { id: held.id, version });
        self.ends.remove(&(held.ends, name.to_owned()));
        Some(held)
    }

    /// The questions that have been held long enough. `version` tells which version their answers have: with one, they
    /// are to be answered now; without, they are dropped (the client asks again, and keeps what it has).
    pub(super) fn ended(&mut self, now: Instant, version: impl Fn(&str) -> Option<u64>) -> Vec<(String, Held<R>)> {
        let mut ended = Vec::new();
        while self.ends.first().is_some_and(|(ends, _)| *ends <= now)
            && let Some((_, name)) = self.ends.pop_first()
        {
            let Some(entry) = self.names.get_mut(&name) else { continue };
            let Some(held) = entry.held.take() else { continue };
            if let Some(version) = version(&name) {
                entry.answered = Some(Answered { id: held.id, version });
                ended.push((name, held));
            } else if entry.answered.is_none() {
                self.names.remove(&name);
            }
        }
        ended
    }

    /// When the next held question ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(ends, _)| *ends)
    }

    /// The names for which a question is held.
    pub(super) fn held(&self) -> Vec<String> {
        self.ends.iter().map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with `ab` answered in version 1 to question 100.
    fn answered() -> Table<&'static str> {
        let mut table = Table::new();
        assert_eq!(table.ask("ab", 100, "socket", Some(1), Instant::now()), Some("socket"));
        table
    }

    fn reply(held: Option<Held<&'static str>>) -> Option<(u16, &'static str)> {
        held.map(|held| (held.id, held.reply))
    }

    #[test]
    fn the_first_question_is_answered_and_the_next_one_held_until_a_change() {
        let mut table = answered();
        assert_eq!(table.ask("ab", 101, "socket", Some(1), Instant::now()), None);
        assert_eq!(reply(table.changed("ab", 1)), None, "no news");
        assert_eq!(reply(table.changed("ab", 2)), Some((101, "socket")));
        assert_eq!(reply(table.changed("ab", 3)), None, "nobody waits");
    }

    #[test]
    fn a_question_after_a_change_is_answered_at_once() {
        let mut table = answered();
        assert_eq!(table.ask("ab", 101, "socket", Some(2), Instant::now()), Some("socket"));
        assert_eq!(table.ask("ab", 102, "socket", Some(2), Instant::now()), None);
    }

    #[test]
    fn a_repeat_of_an_answered_question_is_answered_at_once() {
        let mut table = answered();
        assert_eq!(table.ask("ab", 100, "other socket", Some(1), Instant::now()), Some("other socket"));
        assert_eq!(table.ask("ab", 101, "socket", Some(1), Instant::now()), None);
        assert_eq!(reply(table.changed("ab", 2)), Some((101, "socket")));
        assert_eq!(table.ask("ab", 101, "third socket", Some(2), Instant::now()), Some("third socket"));
    }

    #[test]
    fn a_repeat_of_a_held_question_replaces_it() {
        let mut table = answered();
        assert_eq!(table.ask("ab", 101, "socket", Some(1), Instant::now()), None);
        assert_eq!(table.ask("ab", 101, "other socket", Some(1), Instant::now()), None);
        assert_eq!(reply(table.changed("ab", 2)), Some((101, "other socket")));
        assert!(table.held().is_empty() && table.next_end().is_none());
    }

    #[test]
    fn a_question_is_held_for_twenty_to_twenty_five_seconds() {
        for id in [0, 1, 30_000, u16::MAX] {
            let mut table = answered();
            let now = Instant::now();
            table.ask("ab", id, "socket", Some(1), now);
            let end = table.next_end().unwrap();
            assert!((LONGEST_HOLD - SPREAD..=LONGEST_HOLD).contains(&(end - now)), "{:?}", end - now);
            assert!(table.ended(end - Duration::from_millis(1), |_| Some(1)).is_empty());
            let ended: Vec<_> = table.ended(end, |_| Some(1)).into_iter().map(|(n, h)| (n, h.id)).collect();
            assert_eq!(ended, [("ab".to_owned(), id)]);
            assert_eq!(table.ask("ab", id, "socket", Some(1), end), Some("socket"), "its answer was lost");
        }
    }

    #[test]
    fn repeats_do_not_make_the_hold_longer() {
        let mut table = answered();
        let now = Instant::now();
        table.ask("ab", 101, "socket", Some(1), now);
        let end = table.next_end().unwrap();
        table.ask("ab", 101, "other socket", Some(1), now + Duration::from_secs(5));
        assert_eq!(table.next_end(), Some(end));
        table.ask("ab", 102, "third socket", Some(1), now + Duration::from_secs(10));
        assert!(table.next_end() > Some(end), "another question");
    }

    #[test]
    fn a_name_without_an_answer_is_held_until_it_has_one_and_never_denied() {
        let mut table = Table::new();
        let now = Instant::now();
        assert_eq!(table.ask("ab", 1, "socket", None, now), None);
        assert_eq!(table.ask("ab", 1, "other socket", None, now), None);
        assert_eq!(reply(table.changed("ab", 1)), Some((1, "other socket")));

        assert_eq!(table.ask("cd", 1, "socket", None, now), None);
        assert!(table.ended(now + LONGEST_HOLD, |_| None).is_empty());
        assert!(!table.names.contains_key("cd"), "made-up names must not pile up");
    }
}
