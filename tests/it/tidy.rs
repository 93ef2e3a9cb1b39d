//! The rules about the source text that no linter knows: who may import whom, and what every file owes its reader.
//!
//! The table of imports below *is* the rule; the architecture page (`src/lib.rs`) tells it in prose. What modules of
//! the core may call is clippy's business (`clippy.toml`); here we only look that each of them says so.

use std::fs;
use std::path::{Path, PathBuf};

/// What one top-level module may name of the others, and which crates it may not name at all.
struct Rule {
    module: &'static str,
    /// Paths below `crate::`. `"*"` is everything.
    may_use: &'static [&'static str],
    may_not_name: &'static [&'static str],
}

/// Crates that wait, do IO or write logs.
const EFFECTS: &[&str] = &["axum", "hyper", "kube", "nix", "notify", "reqwest", "tokio", "tracing"];
const EFFECTS_AND_OBJECTS: &[&str] =
    &["axum", "hyper", "k8s_openapi", "kube", "nix", "notify", "reqwest", "tokio", "tracing"];

/// The pure core, leaves first. `volume` stands here for its shared types; it is a leaf and does no IO either.
const CORE: &[Rule] = &[
    Rule { module: "value", may_use: &[], may_not_name: EFFECTS_AND_OBJECTS },
    Rule { module: "volume", may_use: &[], may_not_name: EFFECTS_AND_OBJECTS },
    Rule { module: "problem", may_use: &["value"], may_not_name: EFFECTS_AND_OBJECTS },
    Rule { module: "annotations", may_use: &["problem", "value", "volume"], may_not_name: EFFECTS_AND_OBJECTS },
    Rule {
        module: "model",
        may_use: &["annotations", "problem", "value", "volume"],
        may_not_name: EFFECTS_AND_OBJECTS,
    },
    Rule {
        module: "snapshot",
        may_use: &["model::Certificate", "model::certificate", "problem", "value"],
        may_not_name: EFFECTS,
    },
    Rule {
        module: "settings",
        may_use: &["annotations", "model::Listeners", "problem", "snapshot", "value"],
        may_not_name: EFFECTS,
    },
    Rule { module: "ingress_class", may_use: &["problem", "settings", "snapshot", "value"], may_not_name: EFFECTS },
    Rule {
        module: "translate",
        may_use: &["annotations", "ingress_class", "model", "problem", "settings", "snapshot", "value", "volume"],
        may_not_name: EFFECTS,
    },
    Rule {
        module: "render",
        may_use: &["annotations", "model", "problem", "value", "volume"],
        may_not_name: EFFECTS_AND_OBJECTS,
    },
];

/// Everything that waits, fails or has a side effect.
const SHELL: &[Rule] = &[
    Rule {
        module: "watch",
        may_use: &["hint", "model::Certificate", "model::certificate", "problem", "snapshot", "value"],
        may_not_name: &[],
    },
    Rule {
        module: "status",
        // The statuses that stand in the API server are read from the same watch.
        may_use: &["problem", "snapshot", "value", "watch::cluster"],
        may_not_name: &[],
    },
    Rule {
        module: "publish",
        may_use: &["fault", "model", "render", "value", "volume"],
        may_not_name: &["k8s_openapi", "kube"],
    },
    Rule {
        module: "reports",
        may_use: &["fault", "model", "render", "value", "volume"],
        may_not_name: &["k8s_openapi", "kube"],
    },
    Rule {
        module: "live",
        // How files come onto the volume is the publisher's.
        may_use: &["fault", "model", "publish", "render", "value", "volume"],
        may_not_name: &["k8s_openapi", "kube"],
    },
    Rule { module: "hint", may_use: &[], may_not_name: &["k8s_openapi", "kube"] },
    Rule { module: "fault", may_use: &[], may_not_name: &["kube"] },
    Rule { module: "agent", may_use: &["fault", "hint", "volume"], may_not_name: &["k8s_openapi", "kube"] },
    Rule { module: "telemetry", may_use: &[], may_not_name: &["kube"] },
    Rule {
        module: "metrics",
        may_use: &["annotations", "model", "problem", "value", "volume"],
        may_not_name: &["kube"],
    },
    Rule { module: "quarantine", may_use: &["*"], may_not_name: &[] },
    Rule { module: "reconcile", may_use: &["*"], may_not_name: &[] },
    Rule { module: "server", may_use: &["*"], may_not_name: &[] },
    Rule {
        module: "admission",
        // Neither the agent nor anything else that could start a proxy (CVE-2025-1974).
        may_use: &[
            "model::Certificate",
            "problem",
            "settings",
            "snapshot",
            "translate",
            "value",
            "watch::cluster::FIELD_MANAGER",
        ],
        may_not_name: &["agent", "std::process", "tokio::process"],
    },
    Rule { module: "cli", may_use: &["*"], may_not_name: &[] },
];

/// The line that switches `clippy.toml` on.
const PURE: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut wrong = vec![];
    for file in rust_files("src") {
        let module = file.module();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(rule) = CORE.iter().chain(SHELL).find(|rule| rule.module == module) else {
            wrong.push(format!("{file}: module `{module}` has no row in the table of tests/it/tidy.rs"));
            continue;
        };
        for (line, path) in file.crate_paths() {
            let below = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}::"));
            if !below(&module) && !rule.may_use.iter().any(|prefix| *prefix == "*" || below(prefix)) {
                wrong.push(format!("{file}:{line}: `{module}` may not use `crate::{path}`, only {:?}", rule.may_use));
            }
        }
        for (line, code) in file.code() {
            if let Some(name) = rule.may_not_name.iter().find(|name| names_crate(code, name)) {
                wrong.push(format!("{file}:{line}: `{module}` may not name the crate `{name}`"));
            }
            if code.contains("super::super::") {
                wrong.push(format!("{file}:{line}: say `crate::…`, so that this table can see what is imported"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_module_of_the_core_forbids_io_clocks_and_hashed_collections() {
    let modules = top_level_modules();
    let wrong: Vec<_> = CORE
        .iter()
        .filter(|rule| modules.iter().any(|module| module == rule.module))
        .filter_map(|rule| {
            let flat = PathBuf::from(format!("src/{}.rs", rule.module));
            let file = if root().join(&flat).exists() { flat } else { format!("src/{}/mod.rs", rule.module).into() };
            let source = Source::read(&file);
            (!source.text.contains(PURE))
                .then(|| format!("{source}: a module of the core says `{PURE}` after its docs"))
        })
        .collect();
    assert_none(&wrong);
}

#[test]
fn the_architecture_page_mentions_every_top_level_module() {
    let page: String = Source::read("src/lib.rs").text.lines().filter(|line| line.starts_with("//!")).collect();
    let wrong: Vec<_> = top_level_modules()
        .into_iter()
        .filter(|module| !page.contains(&format!("`{module}`")))
        .map(|module| format!("src/lib.rs: its docs are the map of the code and say nothing of `{module}`"))
        .collect();
    assert_none(&wrong);
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let wrong: Vec<_> = all_rust_files()
        .into_iter()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{file}: does not open with `//!`"))
        .collect();
    assert_none(&wrong);
}

#[test]
fn no_test_is_skipped_in_silence_or_waits_for_time_to_pass() {
    let mut wrong = vec![];
    for file in all_rust_files() {
        // The harness polls for conditions and may pause between two looks; chaos strikes at random moments; with a
        // paused clock no time passes.
        let may_pause = file.path.starts_with("tests/it/support")
            || file.path.ends_with("chaos.rs")
            || file.text.contains("start_paused = true");
        let mut test_code = file.path.starts_with("tests");
        let mut after_attribute = false;
        for (line, code) in file.code() {
            test_code |= code.contains("#[cfg(test)]");
            if code.contains(concat!("#[", "ignore")) {
                wrong.push(format!("{file}:{line}: a test says why it cannot run, or runs; it is never ignored"));
            }
            if test_code && !may_pause && code.contains(concat!("sleep", "(")) {
                wrong.push(format!("{file}:{line}: wait for a condition, not for time to pass"));
            }
            if after_attribute && code.contains(concat!("fn ", "test_")) {
                wrong.push(format!("{file}:{line}: a test's name is a sentence, without `test_`"));
            }
            after_attribute = code.contains("test]") || code.contains("test(");
        }
    }
    assert_none(&wrong);
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    let mut wrong = vec![];
    for path in text_files(&root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            for folder in [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")] {
                // What goes on before it is a longer path that merely has a folder of that name.
                let whole = |(at, _): (usize, &str)| {
                    line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"._-*}/\"".contains(c))
                };
                if line.match_indices(folder).any(whole) {
                    wrong.push(format!("{}:{}: {line}", path.strip_prefix(root()).unwrap().display(), number + 1));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_reader_of_imports_understands_every_way_to_write_one() {
    let source = Source {
        path: "src/model/route.rs".into(),
        text: "use crate::{problem::Subject, value::{host::Hostname, path as p}};\n\
               // crate::not::code\n\
               use crate::render;\n\
               fn f(_: &crate::snapshot::Snapshot) {}\n"
            .into(),
    };
    let paths: Vec<_> = source.crate_paths().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["problem::Subject", "value::host::Hostname", "value::path", "render", "snapshot::Snapshot"]);
    assert_eq!(source.module(), "model");
    assert!(names_crate("use kube::Api;", "kube"));
    assert!(names_crate("let x: tokio::sync::Notify;", "tokio"));
    assert!(!names_crate("use kube_runtime::x;", "kube"));
    assert!(!names_crate("use crate::kube::x;", "kube"));
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// One Rust file, with its path from the root of the checkout.
struct Source {
    path: PathBuf,
    text: String,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Source {
    fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        Self { path, text }
    }

    /// The top-level module it belongs to: `model` for `src/model/route.rs` and for `src/model.rs`.
    fn module(&self) -> String {
        let mut below = self.path.components().skip(1);
        let first = Path::new(below.next().expect("a path below src").as_os_str());
        first.file_stem().expect("a file name").to_string_lossy().into_owned()
    }

    /// Its lines that are not comments, counted from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Every path below `crate::` that it names, groups spread out.
    fn crate_paths(&self) -> Vec<(usize, String)> {
        let code: Vec<_> = self.code().collect();
        let mut paths = vec![];
        for (at, (number, line)) in code.iter().enumerate() {
            for (start, _) in line.match_indices("crate::") {
                if line[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                // A group may go on over the next lines.
                let rest: String = std::iter::once(&line[start + "crate::".len()..])
                    .chain(code[at + 1..].iter().map(|(_, line)| *line))
                    .take(40)
                    .collect();
                spread("", &mut rest.chars().peekable(), &mut |path| paths.push((*number, path)));
            }
        }
        paths
    }
}

/// Reads one tree of a `use` (`a::b`, `a::{b, c}`) and tells each of its paths.
fn spread(prefix: &str, chars: &mut std::iter::Peekable<std::str::Chars<'_>>, found: &mut impl FnMut(String)) {
    let mut path = prefix.to_owned();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            Some('{') => {
                chars.next();
                loop {
                    spread(&path, chars, found);
                    // ` as name` is of no interest here.
                    while chars.next_if(|c| !matches!(c, ',' | '}')).is_some() {}
                    if chars.next() != Some(',') {
                        return;
                    }
                }
            }
            Some(c) if c.is_alphanumeric() || *c == '_' => {
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    path.push(c);
                }
                if chars.next_if_eq(&':').is_none() || chars.next_if_eq(&':').is_none() {
                    return found(path);
                }
                path.push_str("::");
            }
            Some('*') => return found(path.trim_end_matches("::").to_owned()),
            // The end of a group with a comma after its last member.
            _ => return,
        }
    }
}

/// Whether the line names this crate: `kube::…` or `use kube;`, but neither `kube_runtime::…` nor `crate::kube::…`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_:.\"".contains(c)) && code[at + name.len()..].starts_with("::")
    })
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The modules that `lib.rs` lists.
fn top_level_modules() -> Vec<String> {
    let lib = Source::read("src/lib.rs");
    let modules = lib.text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    modules.collect()
}

fn all_rust_files() -> Vec<Source> {
    ["src", "tests", "benches"].into_iter().flat_map(rust_files).collect()
}

fn rust_files(folder: &str) -> Vec<Source> {
    let files = text_files(&root().join(folder)).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    files.map(|path| Source::read(path.strip_prefix(root()).expect("below the root"))).collect()
}

/// Every file below the folder, without what git and cargo keep there. A folder that does not exist has none.
fn text_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), ".git" | "target") {
            files.extend(text_files(&path));
        } else if path.is_file() && name != ".git" {
            files.push(path);
        }
    }
    files.sort();
    files
}
