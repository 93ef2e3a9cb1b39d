//! Other processes as `/proc` shows them: who is whose child, what it calls itself, what it holds open.
//!
//! No state and no signals; whoever asks decides. Used by process 1 as well, so nothing but the standard library.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The process ids of the living children of a process that has one thread only.
pub fn children(of: i32) -> Vec<i32> {
    match fs::read_to_string(format!("/proc/{of}/task/{of}/children")) {
        Ok(list) => {
            list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| alive(*pid)).collect()
        }
        // A kernel without that list, or a process that has ended.
        Err(_) => all().into_iter().filter(|pid| parent(*pid) == Some(of) && alive(*pid)).collect(),
    }
}

/// All process ids.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What the process calls itself: nginx writes its part there ("nginx: worker process is shutting down").
pub fn title(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

/// The parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Whether the process runs, or could: a zombie only waits to be reaped.
pub fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X") | None))
}

/// When the process started, in ticks since the machine did. With the pid it names one process for ever.
pub fn started(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Processes that hold this file as their standard input. The agent gives its proxy a file of the volume there, and
/// every worker inherits it: so the proxy's processes are known among all others, whoever their parent is by now.
pub fn with_standard_input(file: &Path) -> Vec<i32> {
    let Ok(mark) = fs::metadata(file) else { return vec![] };
    let same = |pid: &i32| {
        fs::metadata(PathBuf::from(format!("/proc/{pid}/fd/0")))
            .is_ok_and(|input| (input.dev(), input.ino()) == (mark.dev(), mark.ino()))
    };
    all().into_iter().filter(same).collect()
}

/// The fields of `/proc/PID/stat` after the name (which may hold anything, also blanks and parentheses).
fn stat(pid: i32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = line.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_child_is_known_by_its_parent_its_title_and_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        fs::write(&mark, "").unwrap();
        let input = Stdio::from(fs::File::open(&mark).unwrap());
        let mut child = Command::new("tail").args(["-f", "/dev/null"]).stdin(input).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();

        // A process that was started a moment ago may not have its arguments yet.
        let patience = Instant::now() + Duration::from_secs(60);
        while title(pid).is_empty() && Instant::now() < patience {
            std::thread::yield_now();
        }
        assert_eq!(parent(pid), Some(me));
        assert!(alive(pid) && started(pid).is_some());
        assert_eq!(with_standard_input(&mark), [pid]);
        assert!(title(pid).ends_with("tail -f /dev/null") || title(pid).contains("processes"), "{}", title(pid));

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!alive(pid));
        assert!(with_standard_input(&mark).is_empty());
    }
}
