//! Files as the source of objects: what an editor, a script or a volume of Kubernetes does to them.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::objects::service;
use crate::support::proxies::through_each_proxy;
use crate::support::{Ingress, Pod, Run, eventually, net, wait};

async fn serves(run: &Run, host: &str, expected: &str) {
    eventually(&format!("{host}: {expected}"), async || {
        let who = run.http().try_get(host, "/").await?.who();
        wait::check(who == expected, || who)
    })
    .await;
}

fn web(name: &str, host: &str) -> String {
    Ingress::new(name).host(host).path("Prefix", "/", "web").yaml()
}

through_each_proxy!(files_may_come_change_and_go);

async fn files_may_come_change_and_go() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let run = setup.file("service.yaml", &service("web", &[&pod])).serve().await;
    serves(&run, "a.test", "404").await;
    run.write("a.yaml", &web("a", "a.test"));
    serves(&run, "a.test", "web").await;
    run.write("a.yaml", &web("a", "changed.test"));
    serves(&run, "changed.test", "web").await;
    serves(&run, "a.test", "404").await;
    // In place, in two writes, as a shell does it.
    fs::write(run.manifests().join("b.json"), web("b", "b.test").trim_end_matches("---\n")).unwrap();
    serves(&run, "b.test", "web").await;
    // Renamed within the folder, and out of it.
    fs::rename(run.manifests().join("b.json"), run.manifests().join("c.yml")).unwrap();
    run.write("d.yaml", &web("d", "d.test"));
    serves(&run, "d.test", "web").await;
    serves(&run, "b.test", "web").await;
    fs::rename(run.manifests().join("c.yml"), run.folder().join("elsewhere")).unwrap();
    serves(&run, "b.test", "404").await;
    // What is no manifest by its name is none.
    run.write("notes.txt", &web("e", "e.test"));
    run.write(".hidden.yaml.swp", &web("f", "f.test"));
    run.write("g.yaml", &web("g", "g.test"));
    serves(&run, "g.test", "web").await;
    serves(&run, "e.test", "404").await;
    // The same object in two files is told.
    run.write("h.yaml", &web("g", "other.test"));
    run.says("h.yaml").await;
    run.remove("a.yaml");
    serves(&run, "changed.test", "404").await;
}

through_each_proxy!(a_file_that_does_not_parse_keeps_its_former_objects_and_harms_no_other);

async fn a_file_that_does_not_parse_keeps_its_former_objects_and_harms_no_other() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let run = setup.file("service.yaml", &service("web", &[&pod])).file("a.yaml", &web("a", "a.test")).serve().await;
    serves(&run, "a.test", "web").await;
    for (n, broken) in
        ["kind: [", "{\"kind\": ", "a: b\n  c: d\n", "\u{0}\u{1}", "- &a [*a]", "kind: Ingress\n\tname: x\n"]
            .iter()
            .enumerate()
    {
        run.write("a.yaml", broken);
        let marker = format!("m{n}.test");
        run.write("marker.yaml", &web("marker", &marker));
        serves(&run, &marker, "web").await;
        serves(&run, "a.test", "web").await;
    }
    run.says("a.yaml").await;
    assert!(run.said().contains("line"), "where it broke");
    // A document that does not fit its kind is skipped alone.
    let misfit = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: misfit}\nspec: {rules: 7}\n---\n";
    let unknown = "apiVersion: example.com/v1\nkind: Whatever\nmetadata: {name: x}\n---\n";
    let odd = web("odd", "odd.test").replace("\"spec\"", "\"specc\": 1, \"spec\"");
    run.write("a.yaml", &(misfit.to_owned() + unknown + &odd + &web("b", "b.test")));
    serves(&run, "b.test", "web").await;
    serves(&run, "odd.test", "web").await;
    serves(&run, "a.test", "404").await;
    run.says("specc").await;
    eventually("the misfit is told", async || wait::check(run.said().contains("rules"), || run.said())).await;
    assert!(!run.said().contains("Whatever"), "kinds that we do not read are skipped without a word");
    run.write("a.yaml", "");
    serves(&run, "b.test", "404").await;
}

through_each_proxy!(a_folder_may_be_a_volume_of_kubernetes_and_may_vanish);

async fn a_folder_may_be_a_volume_of_kubernetes_and_may_vanish() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let service = service("web", &[&pod]);
    // A mounted ConfigMap: every file is a link through `..data`, which is replaced by rename.
    let folder = setup.manifests();
    let version = |n: u32, text: &str| {
        let dir = folder.join(format!("..v{n}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("all.yaml"), text).unwrap();
        symlink(format!("..v{n}"), folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    version(1, &(service.clone() + &web("a", "one.test")));
    symlink("..data/all.yaml", folder.join("all.yaml")).unwrap();
    let run = setup.serve().await;
    serves(&run, "one.test", "web").await;
    version(2, &(service.clone() + &web("a", "two.test")));
    serves(&run, "two.test", "web").await;
    serves(&run, "one.test", "404").await;
    // The folder gone: what was served is served on, and it is told. Back again: taken up.
    let away = run.folder().join("away");
    fs::rename(&folder, &away).unwrap();
    run.says("manifests").await;
    serves(&run, "two.test", "web").await;
    fs::write(away.join("more.yaml"), web("b", "three.test")).unwrap();
    fs::rename(&away, &folder).unwrap();
    serves(&run, "three.test", "web").await;
    serves(&run, "two.test", "web").await;
}

through_each_proxy!(unchanged_files_publish_nothing);

async fn unchanged_files_publish_nothing() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let run = setup.file("a.yaml", &(service("web", &[&pod]) + &web("a", "a.test"))).serve().await;
    let loaded = run.loaded();
    let text = fs::read_to_string(run.manifests().join("a.yaml")).unwrap();
    for n in 0..3 {
        // Other bytes, the same objects; then one that shows that they were read.
        run.write("a.yaml", &format!("# {n}\n{text}"));
    }
    run.write("b.yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: unrelated}\nspecc: 1\n");
    run.says("specc").await;
    assert_eq!(run.loaded(), loaded);
    let releases = fs::read_dir(run.volume().releases()).unwrap().count();
    assert_eq!(releases, 1, "one release was ever made");
}
