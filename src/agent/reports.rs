//! What the agent tells the controller: one report for each release and trial, and what the proxy is.
//!
//! Each document is written whole, by a rename. What cannot be written now (a full volume) is written as soon as it
//! can. A report that is no longer true, because another release took over, is taken away.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use super::nginx::includes::replace;
use crate::volume::{Digest, MAX_DOCUMENT, Outcome, ProxyInfo, Report, Volume};

/// All reports of this volume.
pub struct Reports {
    volume: Volume,
    /// Reports that are not on the volume yet.
    pending: BTreeMap<Digest, Report>,
    /// What `proxy.json` says.
    told: Option<ProxyInfo>,
    /// The last writing failed, and that was said.
    failing: bool,
}

impl Reports {
    /// Goes on with what a former agent reported.
    pub fn new(volume: &Volume) -> Self {
        Self { volume: volume.clone(), pending: BTreeMap::new(), told: None, failing: false }
    }

    /// Reports, now or as soon as possible.
    pub fn report(&mut self, report: Report) {
        self.pending.insert(report.digest.clone(), report);
        self.flush();
    }

    /// Writes what could not be written before.
    pub fn flush(&mut self) {
        for (digest, report) in std::mem::take(&mut self.pending) {
            if !self.write(&self.volume.report(&digest), &report) {
                self.pending.insert(digest, report);
            }
        }
    }

    /// Says what the proxy is, if that has changed.
    pub fn tell(&mut self, info: ProxyInfo) {
        if self.told.as_ref() != Some(&info) && self.write(&self.volume.proxy_info(), &info) {
            self.told = Some(info);
        }
    }

    /// What was reported on this release or trial.
    pub fn of(&self, digest: &Digest) -> Option<Report> {
        self.pending.get(digest).cloned().or_else(|| read(&self.volume.report(digest)))
    }

    /// What a former agent said of the proxy.
    pub fn former_info(&self) -> Option<ProxyInfo> {
        read(&self.volume.proxy_info())
    }

    /// The releases that were accepted and that no other has replaced since: one, at most, unless an agent crashed.
    pub fn accepted(&self) -> Vec<Digest> {
        let accepted = |digest: &Digest| {
            self.volume.release(digest).is_dir()
                && self.of(digest).is_some_and(|report| report.outcome == Outcome::Accepted)
        };
        self.all().into_iter().filter(accepted).collect()
    }

    /// Takes away what is no longer true once `in_force` has been accepted: that other releases are, and reports on
    /// what is no longer on the volume.
    pub fn prune(&mut self, in_force: &Digest) {
        for digest in self.all() {
            let release = self.volume.release(&digest).is_dir();
            let superseded = release
                && digest != *in_force
                && self.of(&digest).is_none_or(|report| report.outcome == Outcome::Accepted);
            if superseded || (!release && !self.volume.trial(&digest).is_dir()) {
                self.pending.remove(&digest);
                // What cannot be removed is tried again by the next prune.
                let _ = fs::remove_file(self.volume.report(&digest));
            }
        }
    }

    fn all(&self) -> Vec<Digest> {
        let entries = fs::read_dir(self.volume.reports()).into_iter().flatten().flatten();
        entries.filter_map(|entry| Digest::parse(entry.file_name().to_str()?.strip_suffix(".json")?)).collect()
    }

    fn write(&mut self, path: &std::path::Path, document: &impl Serialize) -> bool {
        let written =
            serde_json::to_vec(document).map_err(anyhow::Error::from).and_then(|json| replace(path, &json, 0o644));
        match written {
            Ok(()) => self.failing = false,
            Err(ref err) if !self.failing => {
                self.failing = true;
                tracing::error!(err = format!("{err:#}"), "cannot tell the controller; trying again each second");
            }
            Err(_) => {}
        }
        !self.failing
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Option<T> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;

    // Whoever broke into the proxy writes here as well: a FIFO must not stop us, nor a link lead us elsewhere.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = fs::File::options().read(true).custom_flags(flags).open(path).ok()?;
    let mut json = vec![];
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    file.take(MAX_DOCUMENT).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Timings;

    fn report(of: &str, outcome: Outcome) -> Report {
        Report {
            digest: Digest::parse(&of.repeat(64)).unwrap(),
            attempt: 2,
            outcome,
            class: None,
            file: None,
            line: None,
            message: String::new(),
            access_log: None,
            timings: Timings::default(),
        }
    }

    #[test]
    fn only_one_release_is_ever_reported_as_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        fs::create_dir_all(volume.reports()).unwrap();
        let mut reports = Reports::new(&volume);
        let [a, b, c] = [("a", Outcome::Accepted), ("b", Outcome::Rejected), ("c", Outcome::Accepted)]
            .map(|(of, outcome)| report(of, outcome));
        for report in [&a, &b, &c] {
            fs::create_dir_all(volume.release(&report.digest)).unwrap();
            reports.report(report.clone());
        }
        // A report on something that is no longer there.
        reports.report(report("d", Outcome::Accepted));

        reports.prune(&c.digest);
        assert_eq!(reports.accepted(), std::slice::from_ref(&c.digest));
        assert_eq!(reports.of(&a.digest), None);
        assert_eq!(reports.of(&b.digest), Some(b));
        assert_eq!(fs::read_dir(volume.reports()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_document_is_none_and_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        fs::create_dir_all(volume.reports()).unwrap();
        let mut reports = Reports::new(&volume);
        let [fifo, link, good] = ["a", "b", "c"].map(|of| report(of, Outcome::Accepted));
        for report in [&fifo, &link, &good] {
            fs::create_dir_all(volume.release(&report.digest)).unwrap();
        }
        nix::unistd::mkfifo(&volume.report(&fifo.digest), nix::sys::stat::Mode::S_IRWXU).unwrap();
        reports.report(good.clone());
        std::os::unix::fs::symlink(volume.report(&good.digest), volume.report(&link.digest)).unwrap();
        assert_eq!(reports.accepted(), std::slice::from_ref(&good.digest));
        assert_eq!((reports.of(&fifo.digest), reports.of(&link.digest)), (None, None));

        // In their place comes what is true.
        reports.report(fifo.clone());
        assert_eq!(reports.of(&fifo.digest), Some(fifo));
    }

    #[test]
    fn what_cannot_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        let mut reports = Reports::new(&volume);
        let a = report("a", Outcome::Accepted);
        reports.report(a.clone());
        assert_eq!(reports.of(&a.digest), Some(a.clone()));
        assert!(!volume.report(&a.digest).exists());

        fs::create_dir_all(volume.reports()).unwrap();
        reports.flush();
        assert_eq!(Reports::new(&volume).of(&a.digest), Some(a));
    }
}
