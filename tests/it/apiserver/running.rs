//! `coxswain run` with the chart's own account and Roles against a real API server, beside an agent with a real nginx.

use std::process::Command;

use crate::support::objects;
use crate::support::wait::{self, eventually};
use crate::support::{Load, Request};

use super::replica::{self, Replica};
use super::{ingress, namespace};

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_of_the_api_server_is_served_addressed_and_told_and_outlives_the_controller() {
    let Some((server, nginx, pod)) = replica::parts().await else { return };
    replica::install(&server, &pod, &[]);
    server.apply(&ingress("shop", "web", "shop.example.com"));
    let mut first = Replica::start(&server, &nginx, "pod-1", &[]);
    first.serves("shop.example.com").await;
    let shown = || server.kubectl(&["get", "ingress", "web", "-n", "shop", "-o", "wide"]);
    eventually("addressed", async || if shown().contains("192.0.2.1") { Ok(()) } else { Err(shown()) }).await;
    let described = || server.kubectl(&["describe", "ingress", "web", "-n", "shop"]);
    eventually("told", async || if described().contains("is live in the proxy") { Ok(()) } else { Err(described()) })
        .await;
    let ready = first.health("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 200, "{}", ready.text());
    let page = first.health("/metrics").await.expect("an answer").text();
    for series in [
        "nginx_ingress_controller_config_last_reload_successful{",
        "coxswain_change_to_live_seconds_count ",
        "coxswain_listed 1",
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
    assert!(!first.said().contains("forbidden"), "the chart's Roles are too narrow:\n{}", first.said());

    // A mistake is told, with what would be right.
    server.kubectl(&["annotate", "ingress", "web", "-n", "shop", "nginx.ingress.kubernetes.io/proxy-body-size=a lot"]);
    eventually("the mistake is told", async || {
        let text = described();
        if text.contains("InvalidValue") && text.contains("\"a lot\"") { Ok(()) } else { Err(text) }
    })
    .await;

    // `check` says the same to whoever asks from outside.
    let kubeconfig = server.kubeconfig();
    let check = Command::new(env!("CARGO_BIN_EXE_coxswain")).arg("check").arg("--kubeconfig").arg(kubeconfig).output();
    let check = check.expect("coxswain runs");
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("Ingress shop/web") && text.contains("\"a lot\""),
        "{text}{}",
        String::from_utf8_lossy(&check.stderr)
    );

    // The second replica follows, and leads when the first is gone; the proxy of the first serves on alone.
    let second = Replica::start(&server, &nginx, "pod-2", &[]);
    second.serves("shop.example.com").await;
    first.kill_controller();
    assert_eq!(first.who("shop.example.com").await, Ok("web".to_owned()));
    server.apply(&ingress("shop", "late", "late.example.com"));
    eventually("the new leader writes", async || {
        let found = server.object("ingress", "shop", "late")["status"]["loadBalancer"]["ingress"].to_string();
        if found.contains("192.0.2.1") { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(first.who("shop.example.com").await, Ok("web".to_owned()));
}

/// All Events of the cluster, as `reason object`, with how often each was told.
fn events(server: &crate::support::apiserver::ApiServer, reason: &str) -> u64 {
    let list = server.kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let events = list["items"].as_array().expect("a list").iter().filter(|event| event["reason"] == reason);
    // An Event that is told again counts in a series of its own.
    events.map(|event| event["series"]["count"].as_u64().unwrap_or(1)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_costs_no_request_and_tells_nothing_twice_that_is_well() {
    const MANY: usize = 200;
    let Some((server, nginx, pod)) = replica::parts().await else { return };
    replica::install(&server, &pod, &[]);
    let good = (0..MANY).map(|n| ingress("shop", &format!("web-{n}"), &format!("n{n}.example.com")));
    let bad = (0..5).map(|n| {
        ingress("shop", &format!("bad-{n}"), &format!("b{n}.example.com")).replace("name: web,", "name: none,")
    });
    server.apply(&good.chain(bad).collect::<String>());
    let mut replica = Replica::start(&server, &nginx, "pod-1", &[]);
    replica.serves("n0.example.com").await;
    let told = || (events(&server, "Sync"), events(&server, "ServiceNotFound"));
    // All are new: each is told of once, five a second after the first fifty.
    eventually("all that is new is told", async || {
        let told = told();
        wait::check(told == (MANY as u64 + 5, 5), || format!("{told:?}"))
    })
    .await;
    let load = Load::start(&replica.client(), &Request::get("n0.example.com", "/"), 4);
    load.goes_on(100).await;
    replica.kill_controller();
    load.goes_on(500).await;
    replica.start_controller();
    replica.leads().await;
    // What comes after all that a restart might tell, is told.
    server.apply(&ingress("shop", "late", "late.example.com"));
    replica.serves("late.example.com").await;
    eventually("the new one is told", async || {
        let text = server.kubectl(&["describe", "ingress", "late", "-n", "shop"]);
        wait::check(text.contains("is live in the proxy"), || text)
    })
    .await;
    let (live, missing) = told();
    assert_eq!(live, MANY as u64 + 6, "a restart tells nothing of what was live before");
    assert!(missing <= 10, "a restart tells of each problem once: {missing}");
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty() && outcome.answers.keys().eq(["web"]), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_live_while_a_thousand_statuses_are_written() {
    let Some((server, nginx, pod)) = replica::parts().await else { return };
    replica::install(&server, &pod, &[]);
    let many = (0..1000).map(|n| ingress("shop", &format!("web-{n}"), &format!("n{n}.example.com")));
    server.apply(&many.collect::<String>());
    let replica = Replica::start(&server, &nginx, "pod-1", &[]);
    replica.serves("n999.example.com").await;
    let addressed = || {
        let all = server.kubectl(&[
            "get",
            "ingress",
            "-n",
            "shop",
            "-o",
            "jsonpath={.items[*].status.loadBalancer.ingress[0].ip}",
        ]);
        all.split_whitespace().count()
    };
    let start = std::time::Instant::now();
    let mut changed = 0;
    let mut slowest = std::time::Duration::ZERO;
    while addressed() < 1000 && start.elapsed() < wait::PATIENCE {
        let host = format!("during-{changed}.example.com");
        let begin = std::time::Instant::now();
        server.apply(&ingress("shop", &format!("during-{changed}"), &host).replace(
            "namespace: shop}",
            "namespace: shop, annotations: {nginx.ingress.kubernetes.io/ssl-redirect: 'false'}}",
        ));
        replica.serves(&host).await;
        slowest = slowest.max(begin.elapsed());
        changed += 1;
    }
    assert!(changed > 0, "all were written before anything could change");
    assert!(addressed() >= 1000, "{} of 1000 statuses after {:?}", addressed(), start.elapsed());
    eprintln!("1000 statuses: {:?}; {changed} changes meanwhile, the slowest live after {slowest:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_of_the_status_is_left_alone_and_the_log_says_so() {
    let Some((server, nginx, pod)) = replica::parts().await else { return };
    replica::install(&server, &pod, &[]);
    server.apply(&ingress("shop", "web", "shop.example.com"));
    let replica = Replica::start(&server, &nginx, "pod-1", &[]);
    replica.serves("shop.example.com").await;
    let theirs = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.66"}]}}}"#;
    eventually("we give in", async || {
        let ours = server.object("ingress", "shop", "web")["status"].to_string().contains("192.0.2.1\"");
        if ours {
            server.kubectl(&[
                "patch",
                "ingress",
                "web",
                "-n",
                "shop",
                "--subresource=status",
                "--type=merge",
                "-p",
                theirs,
            ]);
        }
        let said = replica.said();
        wait::check(said.contains("another writer keeps replacing the address in the status"), || said)
    })
    .await;
    let status = server.object("ingress", "shop", "web")["status"].to_string();
    assert!(status.contains("192.0.2.66"), "{status}");
    assert_eq!(replica.who("shop.example.com").await, Ok("web".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaced_roles_alone_serve_address_and_tell() {
    let Some((server, nginx, pod)) = replica::parts().await else { return };
    let scope = ["--set", "rbac.scope=true,controller.scope.enabled=true,controller.scope.namespaces={shop}"];
    replica::install(&server, &pod, &scope);
    server.apply(
        &objects::config_map("coxswain", &[("proxy-body-size", "1k")])
            .replace("\"metadata\": {", "\"metadata\": {\"namespace\": \"own\","),
    );
    assert!(!replica::chart(&scope).contains("kind: ClusterRole"), "no right beyond the namespaces");
    server.apply(&(namespace("other") + &ingress("other", "web", "other.example.com")));
    server.apply(&ingress("shop", "web", "shop.example.com"));
    let replica = Replica::start(&server, &nginx, "pod-1", &["--watch-namespace=shop"]);
    replica.serves("shop.example.com").await;
    let upload = Request::new("POST", "shop.example.com", "/").body(vec![b'x'; 2048]);
    assert_eq!(replica.client().send(&upload).await.status, 413, "the ConfigMap of another namespace is read");
    eventually("addressed and told", async || {
        let text = server.kubectl(&["describe", "ingress", "web", "-n", "shop"]);
        wait::check(text.contains("192.0.2.1") && text.contains("is live in the proxy"), || text)
    })
    .await;
    assert_eq!(replica.who("other.example.com").await, Ok("404".to_owned()), "only the namespaces in force are served");
    let said = replica.said();
    assert_eq!(said.matches("IngressClasses cannot be listed").count(), 1, "said once at the start: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_accepts_every_field_that_the_chart_renders() {
    let Some((server, ..)) = replica::parts().await else { return };
    server.apply(&(namespace("own") + &namespace("shop")));
    let all = "controller.replicaCount=3,controller.autoscaling.enabled=true,controller.networkPolicy.enabled=true,\
        controller.metrics.enabled=true,controller.hostNetwork=true,controller.defaultSSLCertificate=own/tls,\
        controller.config.proxy-body-size=1k,controller.scope.namespaceSelector=a=b,controller.publishService.enabled=false,\
        controller.ingressClassResource.default=true,controller.service.externalTrafficPolicy=Local,\
        controller.extraArgs.log-level=debug,proxy.extraArgs.log-level=debug";
    for values in [
        vec![],
        vec!["--set", all],
        vec!["--set", "rbac.scope=true,controller.scope.enabled=true,controller.scope.namespaces={own,shop}"],
        vec!["--set", "controller.admissionWebhooks.existingSecret=hook,controller.replicaCount=1"],
        vec!["--set", "controller.admissionWebhooks.enabled=false,controller.publishStatusAddress=192.0.2.1"],
    ] {
        let manifests = replica::chart(&values);
        server.dry_run(&manifests).unwrap_or_else(|said| panic!("{values:?}: {said}\n{manifests}"));
    }
}
