//! What Envoy says on its standard error, which is a FIFO of the volume.
//!
//! Not a pipe: it would break with this agent, and Envoy would say nothing to the next one. Envoy holds both ends of the
//! FIFO and never waits for a reader, so that an agent that is gone or hangs stops nobody; what does not fit meanwhile
//! is lost.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::agent::rejection::printable;
use crate::volume::LogLevel;

/// The FIFO's name, in the folder where Envoy runs.
const FIFO: &str = "log.fifo";

/// How many severe lines are kept.
const KEPT: usize = 64;

/// The longest line that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// The log of every Envoy of this volume. Cheap to clone.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Lines from `error` on, each with its number.
    severe: VecDeque<(u64, String)>,
    next: u64,
}

impl Log {
    /// Reads the FIFO in `folder` for ever; an Envoy that runs already may hold it.
    pub fn listen(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FIFO);
        if !path.exists() {
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).with_context(|| format!("making {FIFO}"))?;
        }
        // Both ends, or it would end with each Envoy.
        let reader = pipe::OpenOptions::new().read_write(true).open_receiver(&path);
        let reader = reader.with_context(|| format!("opening {FIFO}"))?;
        let log = Self::default();
        let kept = log.clone();
        tokio::spawn(async move { kept.read(reader).await });
        Ok(log)
    }

    /// The end for an Envoy that is about to start.
    pub fn writer(&self, folder: &Path) -> anyhow::Result<File> {
        let never_waits = OFlag::O_NONBLOCK.bits();
        let file = File::options().read(true).write(true).custom_flags(never_waits).open(folder.join(FIFO));
        file.with_context(|| format!("opening {FIFO}"))
    }

    /// Now, for [`Log::severe_since`].
    pub fn now(&self) -> u64 {
        self.kept().next
    }

    /// What has been said since then that may be why a start failed.
    pub fn severe_since(&self, since: u64) -> Vec<String> {
        self.kept().severe.iter().filter(|(number, _)| *number >= since).map(|(_, text)| text.clone()).collect()
    }

    async fn read(&self, reader: pipe::Receiver) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line without an end must not take all memory.
            match (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await {
                Ok(0) => return,
                Ok(_) => self.take(String::from_utf8_lossy(&line).trim_end()),
                Err(err) => return tracing::error!(%err, "reading Envoy's log"),
            }
        }
    }

    fn take(&self, line: &str) {
        let (level, text) = parse(line);
        let text = printable(text);
        match level {
            LogLevel::Emerg | LogLevel::Alert | LogLevel::Crit | LogLevel::Error => {
                tracing::error!(target: "envoy", "{text}");
            }
            LogLevel::Warn => tracing::warn!(target: "envoy", "{text}"),
            LogLevel::Notice | LogLevel::Info => tracing::info!(target: "envoy", "{text}"),
            LogLevel::Debug => tracing::debug!(target: "envoy", "{text}"),
        }
        if level <= LogLevel::Error {
            let mut kept = self.kept();
            let number = kept.next;
            kept.next += 1;
            kept.severe.push_back((number, text));
            if kept.severe.len() > KEPT {
                kept.severe.pop_front();
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line of the highest severity, without what stands before its text.
pub fn severe(said: &str) -> Option<&str> {
    let severe = said.lines().map(parse).filter(|(level, _)| *level <= LogLevel::Error);
    severe.min_by_key(|(level, _)| *level).map(|(_, text)| text)
}

/// Reads `[2026-11-24 11:00:00.000][12][error][config] [source/a.cc:1] text`: the level, and the text from the component
/// on. Whatever else it says is of note.
fn parse(line: &str) -> (LogLevel, &str) {
    let mut parts = line.splitn(4, "][");
    let (Some(_), Some(_), Some(level), Some(rest)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return (LogLevel::Notice, line);
    };
    let level = match level {
        "critical" => LogLevel::Crit,
        "error" => LogLevel::Error,
        "warning" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" | "trace" => LogLevel::Debug,
        _ => return (LogLevel::Notice, line),
    };
    // `config] [source/a.cc:1] text`: where in Envoy's source it is said is of no use to who reads it here.
    let text = rest.split_once("] [").and_then(|(_, rest)| rest.split_once("] ")).map_or(rest, |(_, text)| text);
    (level, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_envoy_is_read_and_others_are_passed_on() {
        let line =
            "[2026-11-24 11:00:00.123][12][critical][main] [source/server/server.cc:429] error initializing config";
        assert_eq!(parse(line), (LogLevel::Crit, "error initializing config"));
        assert_eq!(parse("[2026-11-24 11:00:00.123][12][warning][misc] plain"), (LogLevel::Warn, "misc] plain"));
        assert_eq!(parse("terminate called"), (LogLevel::Notice, "terminate called"));
    }

    #[test]
    fn severe_lines_are_kept_and_not_for_ever() {
        let log = Log::default();
        log.take("[t][1][error][config] [a.cc:1] before");
        let since = log.now();
        log.take("[t][1][warning][config] [a.cc:1] not severe");
        log.take("[t][1][critical][main] [a.cc:1] no");
        assert_eq!(log.severe_since(since), ["no"]);
        for _ in 0..2 * KEPT {
            log.take("[t][1][error][main] [a.cc:1] again");
        }
        assert_eq!(log.severe_since(0).len(), KEPT);
    }

    #[tokio::test]
    async fn what_is_said_while_nobody_listens_is_heard_later() {
        let folder = tempfile::tempdir().unwrap();
        let first = Log::listen(folder.path()).unwrap();
        let mut envoy = first.writer(folder.path()).unwrap();
        let next = Log::listen(folder.path()).unwrap();
        std::io::Write::write_all(&mut envoy, b"[t][1][error][main] [a.cc:1] hello\n").unwrap();
        let heard = async {
            while first.now() + next.now() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), heard).await.unwrap();
    }
}
