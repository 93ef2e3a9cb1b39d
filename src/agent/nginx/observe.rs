//! Whether a start or a reload has happened: asked of the workers themselves, on the status socket.
//!
//! Success is proven, not assumed: the new stamp answers, the former workers have all stopped accepting, and it stays
//! so for a moment (nginx tells the old workers to go 100 ms after the new ones have come). Failure is nginx's own line
//! in the error log, the master's end, or that nothing happens for too long.

use std::path::Path;
use std::time::{Duration, Instant};

use super::includes::Stamp;
use super::log::Log;
use super::{Master, status};
use crate::agent::rejection::Rejection;

/// How long nobody else may have answered. More than nginx leaves the old workers after the new ones have started.
const ALONE: Duration = Duration::from_millis(150);

/// How many answers in a row are needed besides.
const ANSWERS: u32 = 10;

/// After a severe line of the master or of a new worker, how long the new workers may still take: not every such line is fatal.
const GRACE: Duration = Duration::from_millis(500);

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What is awaited.
pub struct Awaited<'a> {
    /// Who must answer.
    pub stamp: &'a Stamp,
    /// The workers that must have gone.
    pub former: &'a [i32],
    /// All workers that were there before: what they say now is about their own end.
    pub old: &'a [i32],
    /// Severe lines from here on count.
    pub since: u64,
    /// When to give up.
    pub bound: Duration,
    /// The folders by which nginx may name the release.
    pub folders: &'a [&'a Path],
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Until the first answer with the new stamp.
    pub reload: Duration,
    /// From there until it was certain.
    pub observe: Duration,
}

/// Why it did not.
#[derive(Debug)]
pub struct Failed {
    /// What to report.
    pub rejection: Rejection,
    /// nginx refused, and serves as before. Otherwise nobody knows what it is about to do.
    pub refused: bool,
}

/// Asks until the new stamp serves alone, or until it is certain that it will not.
pub async fn observe(folder: &Path, master: &Master, log: &Log, awaited: Awaited<'_>) -> Result<Observed, Failed> {
    let begun = Instant::now();
    let mut first: Option<Instant> = None;
    let mut others: Option<Instant> = None;
    let mut answers = 0;
    let mut severe: Option<Instant> = None;
    loop {
        if master.is_gone() {
            let lines = log.severe_since(awaited.since, awaited.old);
            let words = Rejection::from_words(&lines, awaited.folders);
            let rejection = words.unwrap_or_else(|| master.rejection(awaited.folders));
            return Err(Failed { rejection, refused: false });
        }
        match status::stamp(folder).await {
            Ok(stamp) if stamp == *awaited.stamp => {
                first.get_or_insert_with(Instant::now);
                answers += 1;
            }
            _ => {
                others = Some(Instant::now());
                answers = 0;
            }
        }
        if let Some(first) = first {
            let alone = others.unwrap_or(first).max(first).elapsed() >= ALONE
                || (others.is_none() && awaited.former.is_empty());
            if answers >= ANSWERS && alone && all_gone(master, awaited.former) {
                return Ok(Observed { reload: first - begun, observe: first.elapsed() });
            }
        } else {
            let lines = log.severe_since(awaited.since, awaited.old);
            if let Some(rejection) = refusal(&lines, &awaited)
                && severe.get_or_insert_with(Instant::now).elapsed() >= GRACE
            {
                return Err(Failed { rejection, refused: true });
            }
        }
        if begun.elapsed() > awaited.bound {
            let what = if first.is_some() { "the former workers serve on" } else { "the new workers do not answer" };
            let message = format!("nginx did not take it up within {} s: {what}", awaited.bound.as_secs());
            return Err(Failed { rejection: Rejection::environment(message), refused: false });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether none of these workers accepts any more.
fn all_gone(master: &Master, former: &[i32]) -> bool {
    former.is_empty() || master.workers().iter().all(|worker| worker.draining || !former.contains(&worker.pid))
}

/// What the lines mean. A `bind()` that failed is tried again five times before nginx gives up.
fn refusal(lines: &[String], awaited: &Awaited<'_>) -> Option<Rejection> {
    let mut severe = lines.iter().filter(|line| !line.contains(" bind() to "));
    severe.next()?;
    Rejection::from_words(lines, awaited.folders)
}
