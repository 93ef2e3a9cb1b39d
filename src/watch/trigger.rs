//! When a change is taken up: the first at once, those that follow together, and none waits for ever.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Gathers changes. Between two firings lies the quiet time at least, and the maximum delay at most once something has
/// changed.
#[derive(Debug)]
pub struct Trigger {
    quiet: Duration,
    longest: Duration,
    /// When it fired last.
    fired: Option<Instant>,
    /// The first and the last change since then.
    changes: Option<(Instant, Instant)>,
}

impl Trigger {
    /// Changes that follow each other within `quiet` are gathered, but none for longer than `longest`.
    pub fn new(quiet: Duration, longest: Duration) -> Self {
        Self { quiet, longest, fired: None, changes: None }
    }

    /// Something changed.
    pub fn touch(&mut self) {
        let now = Instant::now();
        self.changes = Some((self.changes.map_or(now, |(first, _)| first), now));
    }

    /// Returns when the changes so far are to be taken up; never while there are none. May be dropped and asked again.
    pub async fn fire(&mut self) {
        match self.due() {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        self.changes = None;
        self.fired = Some(Instant::now());
    }

    fn due(&self) -> Option<Instant> {
        let (first, last) = self.changes?;
        // A change after a quiet time is taken up at once; one that follows upon another, when it is quiet again.
        let alone = first == last && self.fired.is_none_or(|fired| first >= fired + self.quiet);
        Some(if alone { first } else { (last + self.quiet).min(first + self.longest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Changes at these milliseconds; returns when it fired.
    async fn fired(changes: &[u32]) -> Vec<u128> {
        let begin = Instant::now();
        let mut trigger = Trigger::new(100 * MS, 1000 * MS);
        let mut fired = Vec::new();
        let mut changes = changes.iter().map(|&at| begin + at * MS).peekable();
        let end = begin + 5000 * MS;
        while Instant::now() < end {
            let next = changes.peek().copied().unwrap_or(end);
            tokio::select! {
                biased;
                () = sleep_until(next) => {
                    if changes.next().is_some() {
                        trigger.touch();
                    }
                }
                () = trigger.fire() => fired.push(begin.elapsed().as_millis()),
            }
        }
        fired
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_is_taken_up_at_once_and_those_that_follow_together() {
        assert_eq!(fired(&[10]).await, [10]);
        assert_eq!(fired(&[10, 50, 90, 130]).await, [10, 230]);
        assert_eq!(fired(&[10, 500]).await, [10, 500]);
        assert_eq!(fired(&[10, 60]).await, [10, 160]);
        assert_eq!(fired(&[]).await, [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_changes_in_four_seconds_are_one_at_once_and_one_for_each_second() {
        let thousand: Vec<u32> = (0..1000).map(|n| n * 4).collect();
        assert_eq!(fired(&thousand).await, [0, 1004, 2008, 3012, 4016]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_others_follow_without_end_is_not_put_off_for_ever() {
        let without_end: Vec<u32> = (0..40).map(|n| n * 50).collect();
        assert_eq!(fired(&without_end).await, [0, 1050, 2050]);
    }
}
