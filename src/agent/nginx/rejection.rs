//! What nginx says when it does not take a configuration: whose fault that is, and where.
//!
//! Pure. The closed list of what the environment is to blame for is here; everything else is content.

use std::path::Path;

use crate::agent::rejection::{Rejection, printable};
use crate::volume::FaultClass;

/// Errno values, as nginx prints them, that say nothing about the configuration: EIO, ENXIO, EAGAIN, ENOMEM, EBUSY,
/// ENFILE, EMFILE, ENOSPC, EROFS, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS, ETIMEDOUT, EDQUOT.
const ENVIRONMENT_ERRNO: [u32; 14] = [5, 6, 11, 12, 16, 23, 24, 28, 30, 98, 99, 105, 110, 122];

/// What nginx says of its surroundings without an errno.
const ENVIRONMENT_WORDS: [&str; 5] =
    ["bind() to ", "could not bind()", "ngx_slab_alloc() failed", "memory exhausted", "signal process started"];

impl Rejection {
    /// From what nginx wrote about the configuration in `folders` (the same folder by different names). The first line
    /// of the highest severity counts; `None` if none is severe.
    pub fn from_words<S: AsRef<str>>(lines: &[S], folders: &[&Path]) -> Option<Self> {
        let severe = |mark: &str| lines.iter().map(AsRef::as_ref).find(|line| line.contains(mark));
        // "still could not bind()" comes last and says least: the first line names the address.
        let words = severe("[emerg]").or_else(|| severe("[alert]")).or_else(|| severe("[crit]"))?;
        Some(Self::from_line(words, folders))
    }

    fn from_line(words: &str, folders: &[&Path]) -> Self {
        let message = message_of(words);
        let (text, place) = split_place(message);
        let file = place.map(|(file, _)| relative(file, folders));
        // Our own includes are not the author's: what is wrong there is wrong with this machine.
        let ours = file.as_deref().is_some_and(|file| file.contains("out/local-"));
        let class = if ours || of_the_environment(text) { FaultClass::Environment } else { FaultClass::Content };
        Self { class, file, line: place.map(|(_, line)| line), message: printable(message) }
    }
}

/// The zone of upstreams that nginx says to be full.
pub fn full_zone(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once("no memory in upstream zone \"")?;
    rest.split_once('"').map(|(zone, _)| zone)
}

/// `nginx: [emerg] text` or `2026/11/24 11:00:00 [emerg] 12#12: text` without what stands before the text.
fn message_of(line: &str) -> &str {
    let Some((_, rest)) = line.split_once("] ") else { return line };
    match rest.split_once(": ") {
        Some((process, text)) if process.bytes().all(|b| b.is_ascii_digit() || b == b'#') => text,
        _ => rest,
    }
}

/// Splits ` in FILE:LINE` off the end.
fn split_place(message: &str) -> (&str, Option<(&str, u64)>) {
    let place = || {
        let (text, place) = message.rsplit_once(" in ")?;
        let (file, line) = place.rsplit_once(':')?;
        Some((text, (file, line.trim().parse().ok()?)))
    };
    match place() {
        Some((text, place)) => (text, Some(place)),
        None => (message, None),
    }
}

fn relative(file: &str, folders: &[&Path]) -> String {
    let below = folders.iter().find_map(|folder| Path::new(file).strip_prefix(folder).ok());
    printable(&below.map_or_else(|| file.into(), Path::to_string_lossy))
}

fn of_the_environment(text: &str) -> bool {
    ENVIRONMENT_WORDS.iter().any(|words| text.contains(words))
        || errno(text).is_some_and(|no| ENVIRONMENT_ERRNO.contains(&no))
}

/// The number of the last `(98: Address already in use)`.
fn errno(text: &str) -> Option<u32> {
    text.rsplit('(').find_map(|part| part.split_once(": ")?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Rejection {
        let folders = [Path::new("/p/in/releases/ab"), Path::new("/p/out/current")];
        Rejection::from_words(&[line], &folders).unwrap()
    }

    #[test]
    fn a_mistake_in_the_configuration_is_content_with_its_place() {
        let rejection = read("nginx: [emerg] unknown directive \"foo\" in /p/in/releases/ab/nginx.conf:12");
        assert_eq!(rejection.class, FaultClass::Content);
        assert_eq!((rejection.file.as_deref(), rejection.line), (Some("nginx.conf"), Some(12)));
        assert_eq!(rejection.message, "unknown directive \"foo\" in /p/in/releases/ab/nginx.conf:12");

        let logged = read("2026/11/24 11:00:00 [emerg] 12#12: unknown directive \"x\" in /p/out/current/nginx.conf:3");
        assert_eq!((logged.file.as_deref(), logged.line), (Some("nginx.conf"), Some(3)));

        let zone = read(
            "2026/11/24 11:00:00 [emerg] 12#12: limit_req \"rl\" uses the \"$host\" key while previously it used the \"$uri\" key",
        );
        assert_eq!((zone.class, zone.file), (FaultClass::Content, None));
        assert_eq!(
            read("nginx: [emerg] open() \"/x\" failed (2: No such file or directory) in /p/out/current/nginx.conf:3")
                .class,
            FaultClass::Content
        );
    }

    #[test]
    fn a_fault_of_the_surroundings_blames_nobody() {
        for line in [
            "nginx: [emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)",
            "2026/11/24 11:00:00 [emerg] 1#1: bind() to 0.0.0.0:8080 failed (98: Address already in use)",
            "2026/11/24 11:00:00 [emerg] 1#1: still could not bind()",
            "nginx: [emerg] mkdir() \"/p/tmp/body\" failed (28: No space left on device)",
            "2026/11/24 11:00:00 [crit] 1#1: ngx_slab_alloc() failed: no memory",
            "nginx: [emerg] open() \"/p/in/x\" failed (24: Too many open files) in /p/in/releases/ab/nginx.conf:9",
            "nginx: [emerg] getpwnam(\"x\") failed in /p/in/releases/ab/../../../out/local-main.conf:3",
        ] {
            assert_eq!(read(line).class, FaultClass::Environment, "{line}");
        }
    }

    #[test]
    fn a_zone_that_is_full_is_named() {
        let line = "2026/11/24 11:00:00 [crit] 1#1: ngx_slab_alloc() failed: no memory in upstream zone \"u07\"";
        assert_eq!(full_zone(line), Some("u07"));
        assert_eq!(full_zone("ngx_slab_alloc() failed: no memory in cache keys zone \"c\""), None);
    }

    #[test]
    fn the_first_line_of_the_highest_severity_counts() {
        let lines = ["nginx: [warn] one", "nginx: [crit] two", "nginx: [emerg] three", "nginx: [emerg] four"];
        assert_eq!(Rejection::from_words(&lines, &[]).unwrap().message, "three");
        assert_eq!(Rejection::from_words(&lines[..2], &[]).unwrap().message, "two");
        assert_eq!(Rejection::from_words(&lines[..1], &[]), None);
    }
}
