//! Whether this process stood still: stopped by a signal, frozen with its container, or without a turn on the processor.
//!
//! Who asks our DNS server gives up after a minute, keeps the endpoints it has, and asks again a minute later. So after a
//! long standstill nginx is told to begin anew; after a short one its question still lies there, and is answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often the pulse is felt.
const EVERY: Duration = Duration::from_secs(1);

/// A standstill that may have cost a question. One is given up 60 s after it was asked (`resolver_timeout`), and may have
/// been held for 25 s before.
const LONG: Duration = Duration::from_secs(30);

/// Feels the pulse for as long as it lives.
pub struct Pulse {
    felt: Arc<Mutex<Felt>>,
    task: JoinHandle<()>,
}

struct Felt {
    last: Instant,
    stood_still: bool,
}

impl Pulse {
    /// Begins now. A task of its own, since whoever asks may be busy for long with something else.
    pub fn start() -> Self {
        let felt = Arc::new(Mutex::new(Felt { last: Instant::now(), stood_still: false }));
        let task = tokio::spawn({
            let felt = Arc::clone(&felt);
            async move {
                loop {
                    tokio::time::sleep(EVERY).await;
                    feel(&felt, |_| ());
                }
            }
        });
        Self { felt, task }
    }

    /// Whether this process has stood still for long since this was last asked.
    pub fn stood_still(&self) -> bool {
        feel(&self.felt, |felt| std::mem::take(&mut felt.stood_still))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn feel<T>(felt: &Mutex<Felt>, then: impl FnOnce(&mut Felt) -> T) -> T {
    let mut felt = felt.lock().unwrap_or_else(PoisonError::into_inner);
    felt.stood_still |= felt.last.elapsed() >= LONG;
    felt.last = Instant::now();
    then(&mut felt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_standstill_is_told_once_and_a_short_one_never() {
        let pulse = Pulse::start();
        tokio::time::sleep(10 * LONG).await;
        assert!(!pulse.stood_still(), "time went by in small steps");
        tokio::time::advance(LONG / 2).await;
        assert!(!pulse.stood_still());
        tokio::time::advance(LONG).await;
        assert!(pulse.stood_still());
        assert!(!pulse.stood_still());
        // Also when somebody else notices first.
        tokio::time::advance(LONG).await;
        tokio::time::sleep(2 * EVERY).await;
        assert!(pulse.stood_still());
    }
}
