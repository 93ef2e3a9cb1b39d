//! nginx's error log, as datagrams: `error_log syslog:server=unix:log.sock`.
//!
//! Datagrams, because a pipe that nobody reads would stop every worker that logs, and because they find the next agent
//! by themselves after this one has crashed. Lines are written to our own log at once; those that may be the reason
//! why a reload failed are kept for a while.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::net::UnixDatagram;

use super::User;
use super::rejection::full_zone;
use crate::agent::rejection::printable;
use crate::volume::LogLevel;

/// The socket's name, in the folder where nginx runs.
pub const SOCKET: &str = "log.sock";

/// How many severe lines are kept.
const KEPT: usize = 256;

/// A line of the error log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// How bad it is.
    pub level: LogLevel,
    /// Who says so.
    pub pid: i32,
    /// All of it, from the date on.
    pub text: String,
}

/// The error log of every nginx of this volume. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Kept>>);

struct Kept {
    /// Only this and what is more severe is written.
    level: LogLevel,
    /// Severe lines, each with its number.
    severe: VecDeque<(u64, Line)>,
    next: u64,
    /// Zones that were found full, each with who said so, since [`Log::full_zones`] was asked.
    full: BTreeSet<(i32, String)>,
}

impl Log {
    /// Binds the socket in `folder`, where a former one may lie, and reads it for ever.
    pub fn listen(folder: &Path, user: Option<&User>) -> anyhow::Result<Self> {
        let path = folder.join(SOCKET);
        // The caller holds the lock of the volume, so nobody uses it any more.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("binding {}", path.display()))?;
        let who_may = || {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            user.map_or(Ok(()), |user| {
                std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            })
        };
        who_may().with_context(|| format!("giving {} to nginx's workers", path.display()))?;
        let log = Self::new();
        let reader = log.clone();
        tokio::spawn(async move { reader.read(&socket).await });
        Ok(log)
    }

    fn new() -> Self {
        Self(Arc::new(Mutex::new(Kept {
            level: LogLevel::default(),
            severe: VecDeque::new(),
            next: 0,
            full: BTreeSet::new(),
        })))
    }

    /// From now on, writes only lines of this level and more severe ones.
    pub fn set_level(&self, level: LogLevel) {
        self.kept().level = level;
    }

    /// Now, for [`Log::severe_since`].
    pub fn now(&self) -> u64 {
        self.kept().next
    }

    /// What has been said since then that may be why a start or a reload failed, except by these processes.
    pub fn severe_since(&self, since: u64, except: &[i32]) -> Vec<String> {
        let kept = self.kept();
        let ours = kept.severe.iter().filter(|(number, line)| *number >= since && !except.contains(&line.pid));
        ours.map(|(_, line)| line.text.clone()).collect()
    }

    /// The zones that were found full since this was asked last, each with the process that said so.
    pub fn full_zones(&self) -> BTreeSet<(i32, String)> {
        std::mem::take(&mut self.kept().full)
    }

    async fn read(&self, socket: &UnixDatagram) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match socket.recv(&mut buffer).await {
                Ok(length) => self.take(&buffer[..length]),
                Err(err) => {
                    tracing::warn!(%err, "reading nginx's error log");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn take(&self, datagram: &[u8]) {
        let Some(line) = parse(&String::from_utf8_lossy(datagram)) else { return };
        let mut kept = self.kept();
        if line.level <= kept.level {
            write(line.level, &line.text);
        }
        if line.level <= LogLevel::Crit {
            if let Some(zone) = full_zone(&line.text).filter(|_| kept.full.len() < KEPT) {
                kept.full.insert((line.pid, zone.to_owned()));
            }
            let number = kept.next;
            kept.next += 1;
            kept.severe.push_back((number, line));
            if kept.severe.len() > KEPT {
                kept.severe.pop_front();
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes a line of nginx on to our own log. Its notices tell of every signal and every worker's end at each reload:
/// what matters of that the agent says in a line of its own, so they are for those who ask (`nginx=debug`).
pub fn write(level: LogLevel, text: &str) {
    let text = printable(text);
    match level {
        LogLevel::Emerg | LogLevel::Alert | LogLevel::Crit | LogLevel::Error => {
            tracing::error!(target: "nginx", "{text}")
        }
        LogLevel::Warn => tracing::warn!(target: "nginx", "{text}"),
        LogLevel::Notice | LogLevel::Info | LogLevel::Debug => tracing::debug!(target: "nginx", "{text}"),
    }
}

/// Reads `<187>Nov 24 11:00:00 nginx: 2026/11/24 11:00:00 [error] 12#12: *3 text`. Anything else is not nginx's.
fn parse(datagram: &str) -> Option<Line> {
    let (_, text) = datagram.split_once(concat!("coxswain", ": "))?;
    let (_, rest) = text.split_once(" [")?;
    let (level, rest) = rest.split_once("] ")?;
    let (pid, _) = rest.split_once('#')?;
    let level = LogLevel::ALL.into_iter().find(|known| known.as_str() == level)?;
    Some(Line { level, pid: pid.parse().ok()?, text: text.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_of_nginx_is_read_and_others_are_not() {
        let line =
            parse("<187>Nov 24 11:00:00 coxswain: 2026/11/24 11:00:00 [emerg] 12#13: still could not bind()").unwrap();
        assert_eq!((line.level, line.pid), (LogLevel::Emerg, 12));
        assert_eq!(line.text, "2026/11/24 11:00:00 [emerg] 12#13: still could not bind()");
        assert_eq!(parse("<187>Nov 24 11:00:00 coxswain: hello"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn severe_lines_are_kept_by_process_and_by_time_and_not_for_ever() {
        let log = Log::new();
        let say = |pid: i32, level: &str, text: &str| {
            log.take(format!("<1>x coxswain: 2026/11/24 11:00:00 [{level}] {pid}#0: {text}").as_bytes());
        };
        say(1, "emerg", "before");
        let since = log.now();
        say(1, "error", "not severe");
        say(2, "emerg", "another process");
        say(1, "crit", "ngx_slab_alloc() failed");
        assert_eq!(log.severe_since(since, &[2]), ["2026/11/24 11:00:00 [crit] 1#0: ngx_slab_alloc() failed"]);
        for _ in 0..2 * KEPT {
            say(1, "emerg", "again");
        }
        assert_eq!(log.severe_since(0, &[]).len(), KEPT);
    }
}
