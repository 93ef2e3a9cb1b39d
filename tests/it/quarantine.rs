//! What becomes of objects that the proxy refuses. Our types leave nothing for nginx to refuse, so a wrapper around it
//! refuses a token in nginx's own words; where only the reload is to fail, it is nginx itself that does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::objects::{config_map, service};
use crate::support::run::Setup;
use crate::support::{Ingress, Pod, Run, eventually, net, wait};

/// What the wrapper refuses. It stands in paths.
const TOKEN: &str = "unbearable";

/// How the wrapper behaves.
#[derive(Clone, Copy)]
enum Refuses {
    /// In tests and at the start, with the line, as nginx does for a directive.
    WithLine,
    /// The same without a line, as nginx does for what it finds when all is parsed.
    WithoutLine,
    /// Neither in tests nor at the start: the key of a zone changes, which nginx finds at the reload only.
    AtReload,
}

fn wrapper(setup: &Setup, refuses: Refuses) -> PathBuf {
    let nginx = setup.bin().display();
    let place = match refuses {
        Refuses::WithLine => " in $dir/$conf:$line",
        Refuses::WithoutLine | Refuses::AtReload => "",
    };
    let act = match refuses {
        Refuses::AtReload => format!(
            r#"
case "$dir" in
*/trials/*) ;;
*)
  key='$host'
  if grep -q {TOKEN} "$dir/nginx.conf"; then key='$uri'; fi
  grep -q zone=key "$dir/nginx.conf" || sed -i "s/^http {{/http {{ limit_req_zone $key zone=key:1m rate=1r\/s;/" "$dir/nginx.conf" ;;
esac"#
        ),
        Refuses::WithLine | Refuses::WithoutLine => format!(
            r#"
line=$(grep -n {TOKEN} "$dir/$conf" | head -n 1 | cut -d : -f 1)
if [ -n "$line" ]; then
  echo "nginx: [emerg] cannot bear \"{TOKEN}\"{place}" >&2
  exit 1
fi"#
        ),
    };
    let script = format!(
        r#"#!/bin/sh
dir= conf= last=
for argument in "$@"; do
  case "$last" in
  -p) dir=${{argument%/}} ;;
  -c) conf=$argument ;;
  esac
  last=$argument
done
if [ -n "$dir" ]; then {act}
fi
exec {nginx} "$@"
"#
    );
    let path = setup.folder().join("nginx-wrapper");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn ingress(n: usize, path: &str) -> String {
    Ingress::new(&format!("i{n}")).host(&host(n)).path("Prefix", path, "web").yaml()
}

fn host(n: usize) -> String {
    format!("h{n}.test")
}

/// So many Ingresses; the bad ones have a path with the token too.
fn objects(count: usize, bad: &[usize]) -> String {
    let path = |n| if bad.contains(&n) { format!("/{TOKEN}") } else { "/".to_owned() };
    (0..count).map(|n| ingress(n, &path(n))).collect()
}

async fn answers(run: &Run, host: &str, path: &str, expected: u16) {
    eventually(&format!("{host}{path}: {expected}"), async || {
        let status = run.http().try_get(host, path).await?.status;
        wait::check(status == expected, || status.to_string())
    })
    .await;
}

/// Waits until exactly these are told to bring what the proxy refuses, and nobody is under suspicion any more.
async fn only_these_are_held(run: &Run, bad: &[usize]) {
    let bad: BTreeSet<String> = bad.iter().map(|n| format!("i{n}")).collect();
    eventually(&format!("{bad:?} are held back"), async || {
        let held = metric(run).await?;
        let told = told(&run.said());
        wait::check(told == bad && held == bad.len(), || format!("told: {told:?}, held: {held}"))
    })
    .await;
}

fn told(said: &str) -> BTreeSet<String> {
    let lines = said.lines().filter(|line| line.contains("brings what the proxy refuses"));
    let name = |line: &str| Some(line.split_once("Ingress default/")?.1.split_once(':')?.0.to_owned());
    lines.filter_map(name).collect()
}

async fn metric(run: &Run) -> Result<usize, String> {
    let page = crate::support::Client::new(run.local(run.ports().healthz)).try_get("localhost", "/metrics").await?;
    let page = page.text();
    let line = page.lines().find(|line| line.starts_with("coxswain_held_back")).ok_or_else(|| page.clone())?;
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).ok_or_else(|| line.to_owned())
}

/// Starts with the bad ones among a thousand; all good ones must go live and nobody else be blamed.
async fn among_a_thousand(refuses: Refuses, bad: &[usize]) {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let wrapper = wrapper(&setup, refuses);
    let text = service("web", &[&pod]) + &objects(1000, bad);
    let run = setup.file("a.yaml", &text).proxy_bin(wrapper).serve().await;
    only_these_are_held(&run, bad).await;
    for n in [0, 1, 499, 998, 999] {
        // The hosts of those that never were accepted stay, so that nobody takes them over.
        let expected = if bad.contains(&n) { 503 } else { 200 };
        answers(&run, &host(n), "/", expected).await;
    }
    for &n in bad {
        answers(&run, &host(n), &format!("/{TOKEN}"), 503).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_a_thousand_are_found_by_their_lines() {
    among_a_thousand(Refuses::WithLine, &[0, 111, 222, 333, 444, 555, 666, 777, 888, 999]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thousand_is_found_without_a_line() {
    among_a_thousand(Refuses::WithoutLine, &[642]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_a_thousand_are_found_without_lines() {
    among_a_thousand(Refuses::WithoutLine, &[3, 998]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_a_thousand_are_found_without_lines() {
    among_a_thousand(Refuses::WithoutLine, &[0, 111, 222, 333, 444, 555, 666, 777, 888, 999]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_only_the_reload_refuses_keeps_its_last_form_until_it_is_repaired() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let wrapper = wrapper(&setup, Refuses::AtReload);
    let web = service("web", &[&pod]);
    let run = setup.file("web.yaml", &web).file("a.yaml", &objects(20, &[])).proxy_bin(wrapper).serve().await;
    answers(&run, &host(7), "/", 200).await;
    // Five change and one comes; one of the five is bad.
    let changed = |n| if n == 7 { ingress(n, &format!("/{TOKEN}")) } else { ingress(n, "/new") };
    let text: String = (0..21).map(|n| if n < 5 || (n > 9 && n < 20) { ingress(n, "/") } else { changed(n) }).collect();
    run.write("a.yaml", &text);
    only_these_are_held(&run, &[7]).await;
    for n in [5, 6, 8, 9, 20] {
        answers(&run, &host(n), "/new", 200).await;
        answers(&run, &host(n), "/", 404).await;
    }
    answers(&run, &host(7), "/", 200).await;
    run.write("a.yaml", &objects(21, &[]));
    answers(&run, &host(20), "/", 200).await;
    eventually("nobody is held back", async || {
        let held = metric(&run).await?;
        wait::check(held == 0, || held.to_string())
    })
    .await;
}

/// What is refused is the very host, which stays while an Ingress is only closed.
async fn a_host_that_is_refused(refuses: Refuses) {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let wrapper = wrapper(&setup, refuses);
    let bad = Ingress::new("i3").host(&format!("{TOKEN}.test")).path("Prefix", "/", "web").yaml();
    let text = service("web", &[&pod]) + &objects(3, &[]) + &bad;
    let run = setup.file("a.yaml", &text).proxy_bin(wrapper).serve().await;
    only_these_are_held(&run, &[3]).await;
    answers(&run, &host(0), "/", 200).await;
    // Whoever comes or changes meanwhile goes live and is not blamed.
    run.write("b.yaml", &ingress(4, "/"));
    answers(&run, &host(4), "/", 200).await;
    only_these_are_held(&run, &[3]).await;
    assert!(run.said().contains("nothing of it is served"), "{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_refused_by_its_line_is_left_out_and_nobody_waits() {
    a_host_that_is_refused(Refuses::WithLine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_refused_without_a_line_is_left_out_and_nobody_waits() {
    a_host_that_is_refused(Refuses::WithoutLine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_form_that_was_good_is_served_while_the_new_one_is_refused() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let wrapper = wrapper(&setup, Refuses::WithLine);
    let web = service("web", &[&pod]);
    let run = setup.file("web.yaml", &web).file("a.yaml", &objects(3, &[])).proxy_bin(wrapper).serve().await;
    answers(&run, &host(1), "/", 200).await;
    run.write("a.yaml", &objects(3, &[1]));
    only_these_are_held(&run, &[1]).await;
    answers(&run, &host(1), "/", 200).await;
    let good = ingress(3, "/");
    run.write("b.yaml", &good);
    answers(&run, &host(3), "/", 200).await;
    assert!(!current_text(run.volume().root()).contains(TOKEN));
}

/// What is refused is a setting for the whole proxy: nobody else is blamed, and nobody waits for it to be put right.
async fn a_setting_that_is_refused(refuses: Refuses) {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let wrapper = wrapper(&setup, refuses);
    let settings = |exempt: &str| config_map("settings", &[("no-tls-redirect-locations", exempt)]);
    let setup = setup.file("a.yaml", &(service("web", &[&pod]) + &objects(3, &[]))).file("s.yaml", &settings("/good"));
    let run = setup.flag("--configmap=default/settings").proxy_bin(wrapper).serve().await;
    run.write("s.yaml", &settings(&format!("/{TOKEN}")));
    run.says("ConfigMap default/settings: brings what the proxy refuses").await;
    for n in [3, 4] {
        run.write(&format!("i{n}.yaml"), &ingress(n, "/"));
        answers(&run, &host(n), "/", 200).await;
    }
    answers(&run, &host(0), "/", 200).await;
    only_these_are_held(&run, &[]).await;
    assert!(current_text(run.volume().root()).contains("~^/good"), "as it was last accepted");
    run.write("s.yaml", &settings("/better"));
    eventually("other settings", async || {
        let text = current_text(run.volume().root());
        wait::check(text.contains("~^/better"), || "not yet".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_refused_keeps_nobody_waiting() {
    a_setting_that_is_refused(Refuses::WithoutLine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_only_the_reload_refuses_keeps_nobody_waiting() {
    a_setting_that_is_refused(Refuses::AtReload).await;
}

fn current_text(volume: &Path) -> String {
    fs::read_to_string(volume.join("out/current/nginx.conf")).unwrap()
}
