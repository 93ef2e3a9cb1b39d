//! What a hostile client of the webhook may try: it is reachable from every Pod of a careless cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coxswain::admission::{Basis, server};
use coxswain::settings::Settings;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::certificates::Authority;
use crate::support::client::install_crypto;
use crate::support::{Client, Request};

/// A webhook that judges by an empty cluster.
async fn webhook() -> (Client, watch::Sender<Option<Basis>>) {
    install_crypto();
    let pair = Authority::new().issue(&["webhook.test"]);
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let basis = Basis { snapshot: Arc::default(), settings: Arc::new(Settings::default()), problems: Arc::default() };
    let (sender, receiver) = watch::channel(Some(basis));
    tokio::spawn(server::serve(listener, Arc::new(tls), receiver));
    (Client::new(address).tls("webhook.test"), sender)
}

fn review(ingress: Value) -> Request {
    let request = json!({
        "uid": "1", "operation": "CREATE", "name": "a", "namespace": "default", "userInfo": {}, "dryRun": false,
        "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"},
        "resource": {"group": "networking.k8s.io", "version": "v1", "resource": "ingresses"},
        "object": ingress,
    });
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    Request::new("POST", "webhook.test", server::PATH)
        .header("content-type", "application/json")
        .body(review.to_string())
}

fn ingress(path: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"ingressClassName": "coxswain", "rules": [{"host": "a.test", "http": {"paths": [
            {"path": path, "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
        ]}}]},
    })
}

/// There is no proxy anywhere near: the core alone answers (that it cannot even name the agent, which starts proxies, is
/// part of the table in `tidy`).
#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_1974_an_object_that_is_not_stored_is_judged_without_any_proxy() {
    let (client, _basis) = webhook().await;
    let verdict = async |path: &str| -> Value {
        let answer = client.send(&review(ingress(path))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    };
    let hostile = verdict("/x\n} ssl_engine /proc/1/fd/9; {").await;
    assert_eq!(hostile["response"]["allowed"], json!(false), "{hostile}");
    assert!(hostile["response"]["status"]["message"].as_str().unwrap().contains("has a control character"));
    assert_eq!(verdict("/x").await["response"]["allowed"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_24514_a_review_may_be_neither_too_large_nor_too_slow() {
    let (client, _basis) = webhook().await;
    let large = Request::new("POST", "webhook.test", server::PATH).header("content-type", "application/json");
    match client.try_send(&large.body(vec![b' '; 10 << 20])).await {
        Ok(answer) => assert_eq!(answer.status, 413, "{}", answer.text()),
        // The answer may be lost, because the rest of the body is not read.
        Err(why) => assert!(!why.is_empty()),
    }

    // One that begins and never ends is not waited for, whatever it holds on to.
    let begun = Instant::now();
    let mut slow = client.connect_raw().await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: webhook.test\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        server::PATH
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(60), slow.read(&mut answer)).await.expect("an end").unwrap();
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(begun.elapsed() > Duration::from_secs(1), "it has a while");

    // Others are answered all the same.
    assert_eq!(client.send(&review(ingress("/x"))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_is_refused_and_before_there_is_anything_to_judge_by_nothing_is_allowed() {
    let (client, basis) = webhook().await;
    for (body, status) in [("", 400), ("{", 400), ("[]", 422), ("{\"kind\": \"AdmissionReview\"}", 422)] {
        let request = Request::new("POST", "webhook.test", server::PATH).header("content-type", "application/json");
        assert_eq!(client.send(&request.body(body)).await.status, status, "{body}");
    }
    assert_eq!(client.send(&Request::get("webhook.test", server::PATH)).await.status, 405);
    assert_eq!(client.send(&Request::get("webhook.test", "/")).await.status, 404);
    basis.send_replace(None);
    assert_eq!(client.send(&review(ingress("/x"))).await.status, 503);
}
