//! How much memory the container may still take: a reload needs room for a second generation of workers, and who runs
//! out of it is killed with everything else in the container.
//!
//! Both versions of cgroups, and every level that can be seen from here. What the kernel could drop at once (files that
//! were read once) counts as free.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel shows cgroups: of version 2 (also beside version 1), and memory of version 1.
const ROOTS: [(&str, Files); 3] =
    [("/sys/fs/cgroup", V2), ("/sys/fs/cgroup/unified", V2), ("/sys/fs/cgroup/memory", V1)];

const V1: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", droppable: "total_inactive_file" };
const V2: Files = Files { limit: "memory.max", used: "memory.current", droppable: "inactive_file" };

/// The names of one version.
#[derive(Clone, Copy)]
struct Files {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`.
    droppable: &'static str,
}

/// Bytes that this process and its children may still take; `None` without a limit.
pub fn free() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let free = ROOTS.iter().filter_map(|(root, files)| free_below(Path::new(root), *files, &groups));
    free.min()
}

fn free_below(root: &Path, files: Files, groups: &str) -> Option<u64> {
    let group = group_of(groups, files.limit == V1.limit)?;
    // A container may see its own group as the root, by whatever name the machine knows it.
    let below: PathBuf = root.join(group.trim_start_matches('/'));
    let levels = below.ancestors().take_while(|level| level.starts_with(root));
    levels.filter_map(|level| free_of(level, files)).min()
}

/// The group of this process: `4:memory:/a/b` in version 1, `0::/a/b` in version 2.
fn group_of(groups: &str, v1: bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = if v1 { controllers.split(',').any(|name| name == "memory") } else { controllers.is_empty() };
        ours.then_some(path)
    })
}

fn free_of(level: &Path, files: Files) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(level.join(name)).ok()?.trim().parse::<u64>().ok();
    // `max` is no number, and version 1 says "no limit" with the largest one there is.
    let limit = number(files.limit).filter(|limit| *limit < u64::MAX / 4)?;
    let used = number(files.used)?;
    let stat = fs::read_to_string(level.join("memory.stat")).unwrap_or_default();
    Some(limit.saturating_sub(used.saturating_sub(field(&stat, files.droppable))))
}

fn field(stat: &str, name: &str) -> u64 {
    let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(folder: &Path, files: [(&str, &str); 3]) {
        fs::create_dir_all(folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn the_tightest_level_counts_and_what_can_be_dropped_is_free() {
        let root = tempfile::tempdir().unwrap();
        let groups = "0::/pod/container\n";
        group(
            &root.path().join("pod"),
            [("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "anon 5\ninactive_file 300\n")],
        );
        group(
            &root.path().join("pod/container"),
            [("memory.max", "max\n"), ("memory.current", "900\n"), ("memory.stat", "")],
        );
        assert_eq!(free_below(root.path(), V2, groups), Some(400));
        fs::write(root.path().join("pod/container/memory.max"), "950\n").unwrap();
        assert_eq!(free_below(root.path(), V2, groups), Some(50));
    }

    #[test]
    fn version_1_says_no_limit_with_a_number() {
        let root = tempfile::tempdir().unwrap();
        let groups = "5:cpu:/x\n4:hugetlb,memory:/y\n0::/\n";
        group(
            &root.path().join("y"),
            [
                ("memory.limit_in_bytes", "9223372036854771712"),
                ("memory.usage_in_bytes", "7"),
                ("memory.stat", "total_inactive_file 1"),
            ],
        );
        assert_eq!(free_below(root.path(), V1, groups), None);
        fs::write(root.path().join("y/memory.limit_in_bytes"), "10").unwrap();
        assert_eq!(free_below(root.path(), V1, groups), Some(4));
    }

    #[test]
    fn a_container_that_sees_its_group_as_the_root_is_understood() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), [("memory.max", "10"), ("memory.current", "4"), ("memory.stat", "")]);
        assert_eq!(free_below(root.path(), V2, "0::/kubepods/of/the/node\n"), Some(6));
    }
}
