//! Which of many are bad, when only a group can be asked: halving, with what is already known kept.
//!
//! Knows nothing of proxies or objects' contents; somebody else asks and tells the answer.

use std::collections::BTreeSet;

/// Members whose guilt is open, in groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Search<T> {
    /// The last is looked at first.
    groups: Vec<Group<T>>,
    /// Those that are bad without doubt.
    guilty: BTreeSet<T>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Group<T> {
    members: Vec<T>,
    /// One of them at least is bad; otherwise nothing is known of them.
    bad: bool,
}

impl<T: Clone + Ord> Search<T> {
    /// A search among members of whom one at least is bad.
    pub fn among(members: impl IntoIterator<Item = T>) -> Self {
        let mut search = Self { groups: Vec::new(), guilty: BTreeSet::new() };
        search.push(members.into_iter().collect(), true);
        search.settle();
        search
    }

    /// Whom to ask about next; empty when nothing is open any more.
    pub fn question(&self) -> &[T] {
        match self.groups.last() {
            Some(group) if group.bad => &group.members[..group.members.len() / 2],
            Some(group) => &group.members,
            None => &[],
        }
    }

    /// The answer to the question.
    pub fn answer(&mut self, good: bool) {
        let Some(Group { mut members, bad }) = self.groups.pop() else { return };
        match (bad, good) {
            (true, _) => {
                let rest = members.split_off(members.len() / 2);
                // The bad one of a group is in the other half if it is not in this one; else nothing is known of that.
                self.push(rest, good);
                if !good {
                    self.push(members, true);
                }
            }
            (false, false) => self.push(members, true),
            (false, true) => {}
        }
        self.settle();
    }

    /// All who are still open are together once more, because there is a bad one among them.
    pub fn refused_again(&mut self) {
        let members: Vec<T> = self.open().cloned().collect();
        self.groups.clear();
        self.push(members, true);
        self.settle();
    }

    /// Somebody changed: nothing that was learned holds for them.
    pub fn forget(&mut self, member: &T) {
        for group in &mut self.groups {
            let before = group.members.len();
            group.members.retain(|other| other != member);
            // The one that left may have been the bad one.
            group.bad &= group.members.len() == before;
        }
        self.groups.retain(|group| !group.members.is_empty());
        self.guilty.remove(member);
        self.settle();
    }

    /// Those whose guilt is open.
    pub fn open(&self) -> impl Iterator<Item = &T> {
        self.groups.iter().flat_map(|group| &group.members)
    }

    /// Those who are bad without doubt.
    pub fn guilty(&self) -> &BTreeSet<T> {
        &self.guilty
    }

    /// Whether at least one of those who are open must be bad.
    pub fn is_pressing(&self) -> bool {
        self.groups.iter().any(|group| group.bad)
    }

    fn push(&mut self, members: Vec<T>, bad: bool) {
        if !members.is_empty() {
            self.groups.push(Group { members, bad });
        }
    }

    /// A bad group of one needs no question. Bad groups are looked at before those of which nothing is known, and these
    /// together: more often than not one question frees them all.
    fn settle(&mut self) {
        let alone = |group: &mut Group<T>| group.bad && group.members.len() == 1;
        self.guilty.extend(self.groups.extract_if(.., alone).flat_map(|group| group.members));
        self.groups.sort_by_key(|group| group.bad);
        if !self.is_pressing() {
            let members = self.groups.drain(..).flat_map(|group| group.members).collect();
            self.push(members, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches to the end; returns how many questions it took.
    fn questions(of: u32, bad: &[u32]) -> usize {
        let mut search = Search::among(0..of);
        let mut asked = 0;
        while !search.question().is_empty() {
            let good = !search.question().iter().any(|member| bad.contains(member));
            search.answer(good);
            asked += 1;
        }
        assert_eq!(search.guilty().iter().copied().collect::<Vec<_>>(), bad);
        asked
    }

    #[test]
    fn exactly_the_bad_ones_are_found_and_soon() {
        for (of, bad, most) in [
            (1, &[0][..], 0),
            (2, &[1], 1),
            (1000, &[0], 11),
            (1000, &[999], 10),
            (1000, &[3, 700], 22),
            (1000, &[1, 100, 200, 300, 400, 500, 600, 700, 800, 999], 110),
            (3, &[0, 1, 2], 4),
        ] {
            let asked = questions(of, bad);
            assert!(asked <= most, "{bad:?} of {of}: {asked} questions");
        }
    }

    #[test]
    fn the_first_bad_one_of_a_thousand_takes_ten_questions() {
        for bad in [0, 1, 499, 500, 998, 999] {
            let mut search = Search::among(0..1000);
            let mut asked = 0;
            while search.guilty().is_empty() {
                let good = !search.question().contains(&bad);
                search.answer(good);
                asked += 1;
            }
            assert!(asked <= 10, "{bad}: {asked}");
        }
    }

    #[test]
    fn who_changed_is_no_longer_searched_for() {
        let mut search = Search::among(0..4);
        search.answer(false);
        assert_eq!(search.question(), [0]);
        search.forget(&1);
        assert!(!search.is_pressing(), "1 may have been the bad one");
        search.answer(true);
        search.answer(true);
        assert!(search.question().is_empty() && search.guilty().is_empty());
        let mut found = Search::among([7]);
        found.forget(&7);
        assert!(found.guilty().is_empty());
    }

    #[test]
    fn after_a_further_refusal_the_open_ones_are_asked_again() {
        let mut search = Search::among(0..4);
        search.answer(false);
        search.answer(true);
        assert_eq!(search.guilty(), &BTreeSet::from([1]));
        assert!(!search.is_pressing());
        search.refused_again();
        assert_eq!(search.question(), [2]);
        search.answer(false);
        assert_eq!(search.guilty(), &BTreeSet::from([1, 2]));
    }
}
