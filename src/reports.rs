//! What the agent answered. Nothing in `out/` is trusted: the proxy's container can write whatever it likes there.
//!
//! A document is opened without following links and without waiting, must be a regular file of a size that ours have,
//! and is parsed into its type; its texts are made safe before anybody sees them. What does not pass is as if it were
//! not there, and told.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context as _, ensure};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;

use crate::volume::{Digest, MAX_DOCUMENT, ProxyInfo, Report, Volume};

/// The longest text of the agent's that is passed on, in characters.
const LONGEST: usize = 1000;

/// The report on a release or trial; `None` while there is none. An error is about a document that is not one of ours.
pub fn report(volume: &Volume, digest: &Digest) -> anyhow::Result<Option<Report>> {
    let Some(report) = document::<Report>(&volume.reports(), &format!("{digest}.json"))? else { return Ok(None) };
    ensure!(report.digest == *digest, "the report {} is about another release", digest.short());
    let (file, access_log) = (report.file.as_deref().map(printable), report.access_log.as_deref().map(printable));
    Ok(Some(Report { message: printable(&report.message), file, access_log, ..report }))
}

/// What the agent says of the proxy; `None` while it says nothing.
pub fn proxy_info(volume: &Volume) -> anyhow::Result<Option<ProxyInfo>> {
    let info = document::<ProxyInfo>(&volume.output(), "proxy.json")?;
    Ok(info.map(|info| ProxyInfo { version: printable(&info.version), ..info }))
}

/// The release in force, by the text of its symlink.
pub fn current(volume: &Volume) -> Option<Digest> {
    Digest::parse(std::fs::read_link(volume.current()).ok()?.file_name()?.to_str()?)
}

fn document<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let what = || format!("reading {}", folder.join(name).display());
    match read(folder, name).with_context(what)? {
        Some(text) => serde_json::from_slice(&text).map(Some).with_context(what),
        None => Ok(None),
    }
}

fn read(folder: &Path, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    // Neither the document nor its folder may be a link: it could lead to what only we can read.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let Some(folder) = absent_is_none(openat(AT_FDCWD, folder, flags | OFlag::O_DIRECTORY, Mode::empty()))? else {
        return Ok(None);
    };
    let Some(file) = absent_is_none(openat(folder.as_fd(), name, flags, Mode::empty()))? else { return Ok(None) };
    let file = File::from(file);
    ensure!(file.metadata()?.is_file(), "it is no regular file");
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= MAX_DOCUMENT, "it is larger than {MAX_DOCUMENT} bytes");
    Ok(Some(text))
}

fn absent_is_none<T>(result: nix::Result<T>) -> nix::Result<Option<T>> {
    match result {
        Ok(opened) => Ok(Some(opened)),
        Err(nix::errno::Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A text that can drive neither a terminal nor a reader of logs.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(LONGEST) {
        let harmful = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if harmful { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::volume::{FaultClass, Outcome, Timings};

    fn volume() -> (tempfile::TempDir, Volume, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        fs::create_dir_all(volume.reports()).unwrap();
        (folder, volume, Digest::parse(&"a".repeat(64)).unwrap())
    }

    fn text(digest: &Digest, message: &str) -> String {
        let report = Report {
            digest: digest.clone(),
            attempt: 1,
            outcome: Outcome::Rejected,
            class: Some(FaultClass::Content),
            file: Some("nginx.conf\u{7}".to_owned()),
            line: Some(3),
            message: message.to_owned(),
            access_log: None,
            timings: Timings::default(),
        };
        serde_json::to_string(&report).unwrap()
    }

    #[test]
    fn a_report_is_read_with_its_texts_made_safe() {
        let (_folder, volume, digest) = volume();
        assert_eq!(report(&volume, &digest).unwrap(), None);
        fs::write(volume.report(&digest), text(&digest, "bad \u{1b}[31m\u{202e}")).unwrap();
        let read = report(&volume, &digest).unwrap().unwrap();
        assert_eq!(read.message, "bad \\u{1b}[31m\\u{202e}");
        assert_eq!(read.file.as_deref(), Some("nginx.conf\\u{7}"));
        fs::write(volume.report(&digest), text(&digest, &"x".repeat(5000))).unwrap();
        assert_eq!(report(&volume, &digest).unwrap().unwrap().message.len(), LONGEST);
    }

    #[test]
    fn what_is_no_report_of_ours_is_told_and_never_waited_for() {
        let (folder, volume, digest) = volume();
        let path = volume.report(&digest);
        let other = Digest::parse(&"b".repeat(64)).unwrap();
        let refused = |expect: &str| {
            let error = format!("{:#}", report(&volume, &digest).unwrap_err());
            assert!(error.contains(expect), "{error}");
            fs::remove_file(&path).unwrap();
        };
        fs::write(&path, text(&other, "")).unwrap();
        refused("about another release");
        fs::write(&path, "{").unwrap();
        refused("EOF");
        // A sparse file of a GiB: only the first 64 KiB are ever read.
        fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        refused("larger than 65536 bytes");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        refused("no regular file");
        let secret = folder.path().join("secret");
        fs::write(&secret, text(&digest, "")).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        refused("ELOOP");
    }

    #[test]
    fn a_folder_of_reports_that_is_a_link_is_not_followed() {
        let (folder, volume, digest) = volume();
        fs::remove_dir(volume.reports()).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join(format!("{digest}.json")), text(&digest, "")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, volume.reports()).unwrap();
        assert!(report(&volume, &digest).is_err());
    }
}
