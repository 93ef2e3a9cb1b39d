//! Which Ingresses are ours.

use serde_json::json;

use crate::support::objects::{config_map, document, service};
use crate::support::proxies::through_each_proxy;
use crate::support::{Ingress, Pod, Request, Run, eventually, net, wait};

fn class(name: &str, controller: &str) -> String {
    document(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
        "spec": {"controller": controller},
    }))
}

fn default_class(name: &str, controller: &str) -> String {
    document(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": controller},
    }))
}

/// An Ingress of its own host `<name>.test`.
fn ingress(name: &str, class: Option<&str>, legacy: Option<&str>) -> String {
    let ingress = Ingress::new(name).class(class).host(&format!("{name}.test")).path("Prefix", "/", "web");
    match legacy {
        Some(value) => ingress.annotation("kubernetes.io/ingress.class", value).yaml(),
        None => ingress.yaml(),
    }
}

async fn served(run: &Run, expected: &[(&str, bool)]) {
    for (name, served) in expected {
        eventually(&format!("{name} served: {served}"), async || {
            let who = run.http().try_get(&format!("{name}.test"), "/").await?.who();
            wait::check(who == if *served { "web" } else { "404" }, || who)
        })
        .await;
    }
}

const OURS: &str = "coxswain.dev/ingress";

through_each_proxy!(the_class_decides_and_may_come_later_or_go);

async fn the_class_decides_and_may_come_later_or_go() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod])
        + &class("ours", OURS)
        + &class("foreign", "example.com/other")
        + &class("coxswain", "example.com/other")
        + &ingress("ours", Some("ours"), None)
        + &ingress("foreign", Some("foreign"), None)
        + &ingress("late", Some("late"), None)
        // The name alone is not enough, and the field beats the annotation.
        + &ingress("by-name", Some("coxswain"), None)
        + &ingress("field-first", Some("foreign"), Some("coxswain"))
        + &ingress("field-ours", Some("ours"), Some("other"))
        + &ingress("legacy", None, Some("coxswain"))
        + &ingress("legacy-other", None, Some("nginx"))
        + &ingress("legacy-empty", None, Some(""))
        + &ingress("nothing", None, None);
    let run = setup.file("a.yaml", &manifest).serve().await;
    served(
        &run,
        &[
            ("ours", true),
            ("field-ours", true),
            ("legacy", true),
            ("foreign", false),
            ("late", false),
            ("by-name", false),
            ("field-first", false),
            ("legacy-other", false),
            ("legacy-empty", false),
            ("nothing", false),
        ],
    )
    .await;
    run.write("late.yaml", &class("late", OURS));
    served(&run, &[("late", true), ("ours", true)]).await;
    run.write("late.yaml", &class("late", "example.com/other"));
    served(&run, &[("late", false), ("ours", true)]).await;
    run.write("late.yaml", &class("late", OURS));
    served(&run, &[("late", true)]).await;
    run.remove("late.yaml");
    served(&run, &[("late", false), ("ours", true)]).await;
}

through_each_proxy!(flags_change_whose_ingresses_are_served);

async fn flags_change_whose_ingresses_are_served() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let manifest = service("web", &[&pod])
        + &class("nginx", "k8s.io/ingress-nginx")
        + &class("mine", "example.com/mine")
        + &class("ours", OURS)
        + &ingress("by-name", Some("nginx"), None)
        + &ingress("mine", Some("mine"), None)
        + &ingress("ours", Some("ours"), None)
        + &ingress("legacy", None, Some("nginx"))
        + &ingress("legacy-coxswain", None, Some("coxswain"))
        + &ingress("nothing", None, None);
    let run = setup
        .flag("--watch-ingress-without-class")
        .flag("--ingress-class-by-name=true")
        .flag("--ingress-class=nginx")
        .env("COXSWAIN_CONTROLLER_CLASS", "example.com/mine")
        .file("a.yaml", &manifest)
        .serve()
        .await;
    served(
        &run,
        &[
            ("by-name", true),
            ("mine", true),
            ("ours", false),
            ("legacy", true),
            ("legacy-coxswain", false),
            ("nothing", true),
        ],
    )
    .await;
}

through_each_proxy!(the_default_class_is_filled_in_and_parameters_hold_for_their_class);

async fn the_default_class_is_filled_in_and_parameters_hold_for_their_class() {
    let Some(setup) = Run::setup() else { return };
    let pod = Pod::start("web", net::port()).await;
    let with_parameters = |name: &str, parameters: serde_json::Value| {
        document(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
            "spec": {"controller": OURS, "parameters": parameters},
        }))
    };
    let manifest = service("web", &[&pod])
        + &default_class("default", OURS)
        + &with_parameters(
            "small",
            json!({"kind": "ConfigMap", "name": "small", "scope": "Namespace", "namespace": "default"}),
        )
        + &with_parameters(
            "gone",
            json!({"kind": "ConfigMap", "name": "gone", "scope": "Namespace", "namespace": "default"}),
        )
        + &with_parameters("strange", json!({"apiGroup": "example.com", "kind": "Thing", "name": "x"}))
        + &config_map("small", &[("proxy-body-size", "1k"), ("worker-processes", "9"), ("nonsense", "1")])
        + &ingress("filled-in", None, None)
        + &ingress("legacy", None, Some("other"))
        + &ingress("small", Some("small"), None)
        + &ingress("gone", Some("gone"), None)
        + &ingress("strange", Some("strange"), None)
        + &Ingress::new("own")
            .class(Some("small"))
            .ours("proxy-body-size", "2k")
            .host("own.test")
            .path("Prefix", "/", "web")
            .yaml();
    let run = setup.file("a.yaml", &manifest).serve().await;
    served(&run, &[("filled-in", true), ("legacy", false), ("small", true), ("gone", true), ("strange", true)]).await;
    for (host, size, expected) in [
        ("small.test", 1025, "413"),
        ("filled-in.test", 1025, "web"),
        ("gone.test", 1025, "web"),
        ("own.test", 2048, "web"),
        ("own.test", 2049, "413"),
    ] {
        let request = Request::new("POST", host, "/").body(vec![b'x'; size]);
        assert_eq!(run.http().send(&request).await.who(), expected, "{host} with {size} bytes");
    }
    for told in ["worker-processes", "nonsense", "IngressClass gone", "IngressClass strange"] {
        run.says(told).await;
    }
    // Parameters are live as everything else.
    run.write("b.yaml", &config_map("gone", &[("proxy-body-size", "10")]));
    let request = Request::new("POST", "gone.test", "/").body(vec![b'x'; 11]);
    eventually("the parameters that came", async || {
        let who = run.http().try_send(&request).await?.who();
        wait::check(who == "413", || who)
    })
    .await;
}
