//! The webhook's own certificate: from files, or made by the leader and kept in one Secret that all replicas read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::watch;

use crate::model::Certificate;
use crate::watch::cluster::FIELD_MANAGER;

/// How often the source is looked at again.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long a certificate made here is valid.
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// From which rest of its life on it is renewed.
const RENEW: Duration = Duration::from_secs(30 * 86_400);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Two PEM files, read again when they change (`--validating-webhook-certificate`, `--validating-webhook-key`).
    Files {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A Secret that the leader makes and renews, whose authority it also writes into the webhook's configuration.
    Secret {
        /// Namespace of the Secret and of the Service.
        namespace: String,
        /// The Secret.
        secret: String,
        /// The Service that the API server calls.
        service: String,
        /// The ValidatingWebhookConfiguration to complete; all of its webhooks get the authority.
        configuration: String,
    },
}

/// The certificate in use, handed to every handshake.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    fn set(&self, chain: &[u8], key: &[u8]) -> anyhow::Result<()> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .context("reading the webhook's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("reading the webhook's key")?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).context("using the webhook's key")?;
        let pair = CertifiedKey::new(chain, key);
        pair.keys_match().context("fitting the webhook's key to its certificate")?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(pair));
        Ok(())
    }

    /// A server configuration (TLS 1.2 and 1.3) that always serves what is current.
    ///
    /// # Errors
    /// The crypto provider offers no such versions.
    pub fn config(self: &Arc<Self>) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("setting up TLS for the webhook")?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        Ok(Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver)))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps `served` current, for ever; with a Secret, makes and renews it while we lead.
pub async fn keep(source: Source, client: Client, served: Arc<Served>, mut leads: watch::Receiver<bool>) {
    let mut last = String::new();
    loop {
        let leader = *leads.borrow_and_update();
        let done = match &source {
            Source::Files { chain, key } => from_files(chain, key, &served).await,
            Source::Secret { namespace, secret, service, configuration } => {
                from_secret(&client, &Names { namespace, secret, service, configuration }, &served, leader).await
            }
        };
        let said = done.err().map(|error| format!("{error:#}")).unwrap_or_default();
        if said != last && !said.is_empty() {
            tracing::warn!(error = said, "the webhook has no new certificate");
        }
        last = said;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = leads.changed() => if changed.is_err() { return },
        }
    }
}

async fn from_files(chain: &Path, key: &Path, served: &Served) -> anyhow::Result<()> {
    let read = async |path: &Path| tokio::fs::read(path).await.with_context(|| format!("reading {}", path.display()));
    served.set(&read(chain).await?, &read(key).await?)
}

struct Names<'a> {
    namespace: &'a str,
    secret: &'a str,
    service: &'a str,
    configuration: &'a str,
}

async fn from_secret(client: &Client, names: &Names<'_>, served: &Served, leader: bool) -> anyhow::Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), names.namespace);
    let found = api
        .get_opt(names.secret)
        .await
        .with_context(|| format!("reading Secret {}/{}", names.namespace, names.secret))?;
    let made = found.as_ref().and_then(Made::of).filter(|made| made.rest() > RENEW);
    let made = match made {
        Some(made) => made,
        None if leader => store(&api, names, found.is_some()).await?,
        None => {
            return Err(anyhow!(
                "Secret {}/{} holds no certificate yet; the leader makes it",
                names.namespace,
                names.secret
            ));
        }
    };
    served.set(&made.chain, &made.key)?;
    if leader {
        complete(client, names.configuration, &made.authority).await?;
    }
    Ok(())
}

async fn store(api: &Api<Secret>, names: &Names<'_>, exists: bool) -> anyhow::Result<Made> {
    let made = Made::new(names)?;
    let data = [("ca.crt", &made.authority), ("tls.crt", &made.chain), ("tls.key", &made.key)];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.clone()))).collect();
    let mut secret = Secret { data: Some(data), type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
    secret.metadata.name = Some(names.secret.to_owned());
    let context = || format!("writing Secret {}/{}", names.namespace, names.secret);
    if exists {
        let patch = Patch::Merge(json!({"data": secret.data}));
        api.patch(
            names.secret,
            &PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() },
            &patch,
        )
        .await
        .with_context(context)?;
    } else {
        api.create(&PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }, &secret)
            .await
            .with_context(context)?;
    }
    Ok(made)
}

/// Writes the authority into every webhook of the configuration, where it is not there yet.
async fn complete(client: &Client, configuration: &str, authority: &[u8]) -> anyhow::Result<()> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let context = || format!("completing ValidatingWebhookConfiguration {configuration}");
    let found = api.get(configuration).await.with_context(context)?;
    let bundle = ByteString(authority.to_vec());
    let webhooks: Vec<_> =
        found.webhooks.iter().flatten().filter(|w| w.client_config.ca_bundle.as_ref() != Some(&bundle)).collect();
    if webhooks.is_empty() {
        return Ok(());
    }
    // Merged by name: nothing else of a webhook is touched.
    let webhooks: Vec<_> =
        webhooks.iter().map(|w| json!({"name": w.name, "clientConfig": {"caBundle": bundle}})).collect();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(configuration, &params, &Patch::Strategic(json!({"webhooks": webhooks}))).await.with_context(context)?;
    Ok(())
}

/// A certificate made here, with its authority. The authority's key is not kept: each renewal has a new one.
struct Made {
    authority: Vec<u8>,
    chain: Vec<u8>,
    key: Vec<u8>,
    not_after: i64,
}

impl Made {
    fn of(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let entry = |key: &str| data.get(key).map(|value| value.0.clone());
        let (authority, chain, key) = (entry("ca.crt")?, entry("tls.crt")?, entry("tls.key")?);
        let not_after = Certificate::parse(&chain, &key).ok()?.not_after;
        Some(Self { authority, chain, key, not_after })
    }

    fn new(names: &Names<'_>) -> anyhow::Result<Self> {
        let now = SystemTime::now();
        let (from, to) = (now - Duration::from_secs(3600), now + LIFE);
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "coxswain admission authority");
        (authority.not_before, authority.not_after) = (from.into(), to.into());
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().context("making a key")?)
            .context("making the webhook's authority")?;
        let hosts = [
            format!("{}.{}.svc", names.service, names.namespace),
            format!("{}.{}.svc.cluster.local", names.service, names.namespace),
        ];
        let mut leaf = CertificateParams::new(hosts).context("naming the webhook's certificate")?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (leaf.not_before, leaf.not_after) = (from.into(), to.into());
        let key = KeyPair::generate().context("making a key")?;
        let leaf = leaf.signed_by(&key, &authority).context("making the webhook's certificate")?;
        Ok(Self {
            authority: authority.pem().into_bytes(),
            chain: leaf.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            not_after: seconds(to),
        })
    }

    /// How long it is still valid.
    fn rest(&self) -> Duration {
        let rest = self.not_after.saturating_sub(seconds(SystemTime::now()));
        Duration::from_secs(u64::try_from(rest).unwrap_or_default())
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
