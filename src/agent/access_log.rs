//! Where the proxy logs access: found out by opening, before it is told to.
//!
//! A folder that does not exist in this container, or cannot be written, would make the proxy refuse a whole release, and
//! not start at all after a restart. So the file is opened here first, just as the proxy does, and where that fails the
//! standard output takes its place and the controller is told why.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// The standard output by its name, which not every kind of it has (a socket has none).
const STANDARD_OUTPUT: &str = "/dev/stdout";

/// Where access is logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccessLog {
    /// The file; `None`: nowhere.
    pub file: Option<String>,
    /// Why it is not the file that the release wants; `None` if it is.
    pub trouble: Option<String>,
}

impl AccessLog {
    /// Decides for a release that wants this file, or the standard output.
    pub fn of(wanted: Option<&str>) -> Self {
        let trouble = wanted.and_then(|path| open(path).err()).map(|err| err.to_string());
        if let (Some(path), Some(trouble)) = (wanted, &trouble) {
            tracing::warn!("the access log {path} cannot be opened: {trouble}; logging to the standard output");
        }
        let file = wanted.filter(|_| trouble.is_none()).unwrap_or(STANDARD_OUTPUT);
        let can_be = trouble.is_none() && wanted.is_some() || open(file).is_ok();
        Self { file: can_be.then(|| file.to_owned()), trouble }
    }

    /// Whether the file that a release wants can be opened by now, and could not before.
    pub fn could_be(&self, wanted: Option<&str>) -> bool {
        wanted.filter(|_| self.trouble.is_some()).is_some_and(|path| open(path).is_ok())
    }
}

/// Opens a file as the proxy will. Not waiting: that one waits for ever for the reader of a pipe that has none.
fn open(path: &str) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o644).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_file_that_can_be_opened_is_taken_and_any_other_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let good = path("access.log");
        assert_eq!(AccessLog::of(Some(&good)), AccessLog { file: Some(good), trouble: None });
        assert_eq!(AccessLog::of(Some("/dev/null")).trouble, None);
        nix::unistd::mkfifo(path("pipe").as_str(), Mode::S_IRWXU).unwrap();
        for (bad, why) in [
            (path("missing/access.log"), "No such file or directory"),
            (path("."), "Is a directory"),
            (path("pipe"), "No such device or address"),
        ] {
            let log = AccessLog::of(Some(&bad));
            assert!(log.trouble.as_deref().unwrap().starts_with(why), "{log:?}");
            assert_ne!(log.file, Some(bad));
        }
    }
}
