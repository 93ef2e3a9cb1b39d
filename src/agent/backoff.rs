//! Trying again, less and less often.

use std::time::Duration;

use tokio::time::Instant;

/// When the next attempt is due.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    delay: Duration,
    until: Option<Instant>,
}

impl Backoff {
    /// Pauses of `first`, twice that, and so on up to `longest`. Due at once.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, delay: first, until: None }
    }

    /// An attempt has failed: the next one is due after a pause, which is returned.
    pub fn failed(&mut self) -> Duration {
        let pause = self.delay;
        self.until = Some(Instant::now() + pause);
        self.delay = (pause * 2).min(self.longest);
        pause
    }

    /// Due at once, and the next pause is a short one.
    pub fn reset(&mut self) {
        self.until = None;
        self.delay = self.first;
    }

    /// Whether the next attempt is due.
    pub fn is_due(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// When it is, unless at once.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        assert!(backoff.is_due());
        let pauses: Vec<_> = (0..4).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 3, 3]);
        assert!(!backoff.is_due());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(backoff.is_due());
        backoff.reset();
        assert_eq!(backoff.failed().as_secs(), 1);
    }
}
