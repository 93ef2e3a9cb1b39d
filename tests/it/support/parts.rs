//! The real parts a test runs against: where they are, and what to do without them.
//!
//! Looked for in `TOOLS`, in the folder of `hack/tools` and on PATH. A missing part skips the test and says why,
//! unless `COXSWAIN_REQUIRE` (comma separated, for example `nginx,envoy`) names it: then the test fails.

use std::env;
use std::path::{Path, PathBuf};

/// nginx, or `None` after the reason has been printed.
pub fn nginx() -> Option<PathBuf> {
    part("nginx", "nginx")
}

/// Envoy, or `None` after the reason has been printed.
pub fn envoy() -> Option<PathBuf> {
    part("envoy", "envoy")
}

/// The executable `program`, which belongs to the part that `COXSWAIN_REQUIRE` calls `part`.
pub fn part(part: &str, program: &str) -> Option<PathBuf> {
    let found = folders().into_iter().map(|folder| folder.join(program)).find(|path| is_executable(path));
    found.or_else(|| without(part, &format!("no {program} on this machine; `hack/tools {part}` brings it")))
}

/// Nothing, after the reason has been printed; fails the test when `COXSWAIN_REQUIRE` names the part.
pub fn without<T>(part: &str, why: &str) -> Option<T> {
    let required = env::var("COXSWAIN_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|word| word.trim() == part), "{part} is required: {why}");
    eprintln!("skipped: {why}");
    None
}

fn folders() -> Vec<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(env::var_os("TOOLS").map(|tools| Path::new(&tools).join("bin")));
    folders.extend(cache.map(|cache| cache.join("coxswain-tools/bin")));
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
