//! The webhook, asked by a real API server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use coxswain::admission::certificate::{self, Served, Source};
use coxswain::admission::{Basis, server};
use coxswain::settings::{Flags, Settings};
use coxswain::translate::{HeldBack, translate};
use coxswain::watch::cluster::{Cluster, Options};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::apiserver::ApiServer;
use crate::support::certificates::Authority;
use crate::support::wait::eventually;

use super::{ingress, namespace};

const CLASS: &str = "---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: coxswain}
spec: {controller: coxswain.dev/ingress}
";

/// Judges by what the cluster holds at each moment.
fn court(cluster: Arc<Cluster>) -> watch::Receiver<Option<Basis>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut changes = cluster.changes();
        loop {
            if let Some(snapshot) = cluster.snapshot() {
                let (settings, _) = Settings::read(&Flags::default(), &snapshot);
                let problems = Arc::new(translate(&snapshot, &settings, &HeldBack::default(), 0).problems);
                sender.send_replace(Some(Basis {
                    snapshot: Arc::new(snapshot),
                    settings: Arc::new(settings),
                    problems,
                }));
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The leaf that the server shows, if a client that trusts `root` alone accepts it for `name`.
async fn trusted(address: SocketAddr, name: &str, root: CertificateDer<'static>) -> Result<Vec<u8>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).map_err(|error| error.to_string())?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.first().map(|leaf| leaf.to_vec()).ok_or_else(|| "no certificate".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_rejected_is_denied_and_the_rest_is_warned_of() {
    let Some(server) = ApiServer::start() else { return };
    let bad = ingress("shop", "old", "old.example.com").replace("path: /,", r#"path: "/a?b","#);
    server.apply(&(namespace("shop") + CLASS + &bad));
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let folder = tempfile::tempdir().expect("a folder");
    let (chain, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&chain, &pair.certificate).expect("written");
    std::fs::write(&key, &pair.key).expect("written");
    let client = server.client().await;
    let served = Arc::new(Served::default());
    let (_lead, leads) = watch::channel(false);
    tokio::spawn(certificate::keep(Source::Files { chain, key }, client.clone(), Arc::clone(&served), leads));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let cluster = Arc::new(Cluster::start(&client, Options::default()));
    tokio::spawn(server::serve(listener, served.config().expect("TLS"), court(cluster)));
    let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, authority.pem());
    server.apply(&format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{name: coxswain}}
webhooks:
  - name: validate.coxswain.dev
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    clientConfig: {{url: 'https://localhost:{port}{}', caBundle: {bundle}}}
    rules: [{{apiGroups: [networking.k8s.io], apiVersions: [v1], resources: [ingresses], operations: [CREATE, UPDATE, DELETE]}}]
",
        server::PATH
    ));
    // Asked at all: a bad path is denied, in our words.
    eventually("the webhook is asked", async || {
        let bad = ingress("shop", "bad", "bad.example.com").replace("path: /,", r#"path: "/a?b","#);
        match server.try_apply(&bad) {
            Err(said)
                if said.contains("denied the request")
                    && said.contains("/a?b")
                    && said.contains("spec.rules[0].http.paths[0].path") =>
            {
                Ok(())
            }
            said => Err(format!("{said:?}")),
        }
    })
    .await;
    // Nothing stored: a Service that is missing is a warning, not a denial.
    let warned = server.try_apply(&ingress("shop", "web", "a.example.com")).expect("allowed");
    assert!(warned.contains("Warning:") && warned.contains("web"), "{warned}");
    // An old fault does not stand in the way of another change, nor of its own mending and deletion.
    let annotated = bad.replace("namespace: shop}", "namespace: shop, annotations: {note: x}}");
    server.try_apply(&annotated).expect("makes nothing worse");
    server.kubectl(&["delete", "ingress", "old", "-n", "shop"]);
    // Another controller's class is none of our business.
    let foreign =
        ingress("shop", "foreign", "b.example.com").replace("ingressClassName: coxswain", "ingressClassName: other");
    server.try_apply(&foreign.replace("path: /,", r#"path: "/a?b","#)).expect("not ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_makes_the_certificate_that_all_replicas_serve_and_the_api_server_trusts() {
    let Some(server) = ApiServer::start() else { return };
    server.apply(
        &(namespace("own")
            + "---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: coxswain}
webhooks:
  - name: validate.coxswain.dev
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Ignore
    clientConfig: {service: {name: coxswain-admission, namespace: own, path: /networking/v1/ingresses}}
    rules: [{apiGroups: [networking.k8s.io], apiVersions: [v1], resources: [ingresses], operations: [CREATE]}]
"),
    );
    let client = server.client().await;
    let source = Source::Secret {
        namespace: "own".to_owned(),
        secret: "coxswain-admission".to_owned(),
        service: "coxswain-admission".to_owned(),
        configuration: "coxswain".to_owned(),
    };
    let mut leaves = BTreeSet::new();
    for leader in [true, false] {
        let served = Arc::new(Served::default());
        let (_lead, leads) = watch::channel(leader);
        let (source, keeper) = (source.clone(), Arc::clone(&served));
        let task = tokio::spawn(certificate::keep(source, client.clone(), keeper, leads));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (_basis, basis) = watch::channel(None);
        tokio::spawn(server::serve(listener, served.config().expect("TLS"), basis));
        let leaf = eventually("trusted by what stands in the configuration", async || {
            let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
            let found = api.get("coxswain").await.map_err(|e| e.to_string())?;
            let bundle = found.webhooks.unwrap_or_default().remove(0).client_config.ca_bundle.ok_or("no bundle yet")?;
            let root = CertificateDer::from_pem_slice(&bundle.0).map_err(|e| e.to_string())?;
            trusted(address, "coxswain-admission.own.svc", root).await
        })
        .await;
        leaves.insert(leaf);
        task.abort();
    }
    assert_eq!(leaves.len(), 1, "the follower serves what the leader made");
}
