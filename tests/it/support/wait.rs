//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long a condition may take on a machine that does a lot besides.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks `probe` again and again until it gives a value. Fails after [`PATIENCE`] with the last reason it gave.
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> impl Future<Output = T> {
    within(PATIENCE, what, probe)
}

/// As [`eventually`], with a bound of its own. For what must come after nothing more than a fixed time (a time-out).
#[track_caller]
pub fn within<T>(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(why) if start.elapsed() > bound => {
                    panic!("{caller}: {what}: not within {bound:?}; at last: {why}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }
}

/// Lets time pass that is part of what is tested: how long a client thinks, or a fault lasts. Never a wait for an effect.
pub async fn lasting(time: Duration) {
    tokio::time::sleep(time).await;
}

/// `Ok` when `good`, else the reason. For probes.
pub fn check(good: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(why()) }
}
