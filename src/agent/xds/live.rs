//! What changes without a release, as Envoy's resources: the endpoints of an upstream, the certificate of a name.
//!
//! Versions are hashes of what is in them, so that the next agent knows what Envoy holds already.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, DataSource, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate};
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use sha2::{Digest, Sha256};

use super::kind::Kind;
use super::session::Live;
use crate::agent::endpoints::Source;
use crate::volume::{Certificates, Volume};

/// A file that is larger than this is no certificate.
const LARGEST_PAIR: u64 = 1024 * 1024;

/// What lies in `live/`, as of now.
pub struct View<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// Endpoints.
    pub source: &'a Source,
    /// Which certificate is shown for which server name.
    pub certificates: &'a Certificates,
}

impl Live for View<'_> {
    fn resource(&self, kind: Kind, name: &str) -> Option<Arc<Resource>> {
        match kind {
            Kind::Endpoints => self.endpoints(name).map(Arc::new),
            Kind::Secret => self.secret(name).map(Arc::new),
            Kind::Cluster | Kind::Listener | Kind::Routes => None,
        }
    }
}

impl View<'_> {
    /// None only while a name is looked up for the first time; whoever is unknown has no endpoints.
    fn endpoints(&self, id: &str) -> Option<Resource> {
        let upstream = self.source.upstream(id);
        if upstream.is_none() && self.volume.endpoint_set(id).exists() {
            return None;
        }
        let addresses = upstream.map(|upstream| upstream.addresses.clone()).unwrap_or_default();
        let lb_endpoints = addresses.iter().map(endpoint).collect();
        let endpoints = vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }];
        let assignment = ClusterLoadAssignment {
            cluster_name: id.to_owned(),
            endpoints: if addresses.is_empty() { vec![] } else { endpoints },
            ..ClusterLoadAssignment::default()
        };
        Some(resource(id, &assignment))
    }

    /// The certificate of a server name; the default one where its own cannot be read.
    fn secret(&self, name: &str) -> Option<Resource> {
        let slots = [self.certificates.slot(name), self.certificates.default.as_str()];
        let pair = slots.into_iter().find_map(|slot| match pair(&self.volume.tls_slot(slot)) {
            Ok(pair) => Some(pair),
            Err(err) => {
                tracing::error!(slot, err = format!("{err:#}"), "a certificate cannot be served");
                None
            }
        })?;
        Some(resource(name, &Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(pair)) }))
    }
}

/// A resource whose version is a hash of its content.
fn resource<M: Message + Name>(name: &str, message: &M) -> Resource {
    let value = message.encode_to_vec();
    let version = Sha256::digest(&value).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let any = Any { type_url: M::type_url(), value };
    Resource { name: name.to_owned(), version, resource: Some(any), ..Resource::default() }
}

fn endpoint(at: &std::net::SocketAddr) -> LbEndpoint {
    let address = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    let address = Some(Address { address: Some(address::Address::SocketAddress(address)) });
    let endpoint = Endpoint { address, ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

/// Chain and key of a file, apart: Envoy shows the chain to whoever asks its admin socket.
fn pair(path: &Path) -> anyhow::Result<TlsCertificate> {
    let what = || format!("reading {}", path.display());
    let size = fs::metadata(path).with_context(what)?.len();
    ensure!(size <= LARGEST_PAIR, "{} is too large: {size} bytes", path.display());
    let text = fs::read_to_string(path).with_context(what)?;
    let (chain, key) = split(&text);
    ensure!(!chain.is_empty() && !key.is_empty(), "{} does not hold a chain and a key", path.display());
    let inline = |text: String| {
        let specifier = Some(Specifier::InlineBytes(text.into_bytes()));
        Some(DataSource { specifier, ..DataSource::default() })
    };
    Ok(TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() })
}

/// The blocks of a PEM file that are certificates, and the one that is a key.
fn split(text: &str) -> (String, String) {
    let (mut chain, mut key, mut block) = (String::new(), String::new(), String::new());
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            block.clear();
        }
        block.push_str(line);
        block.push('\n');
        match line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----")) {
            Some("CERTIFICATE") => chain.push_str(&block),
            Some(label) if label.ends_with("PRIVATE KEY") => key.clone_from(&block),
            _ => {}
        }
    }
    (chain, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::endpoints::Names;

    fn pem(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn the_key_is_never_in_the_chain() {
        let file = [pem("CERTIFICATE", "leaf"), pem("EC PRIVATE KEY", "key"), pem("CERTIFICATE", "issuer")].concat();
        let (chain, key) = split(&file);
        assert_eq!(chain, [pem("CERTIFICATE", "leaf"), pem("CERTIFICATE", "issuer")].concat());
        assert_eq!(key, pem("EC PRIVATE KEY", "key"));
        assert_eq!(split("garbage"), (String::new(), String::new()));
    }

    #[tokio::test]
    async fn every_name_has_a_certificate_and_every_upstream_has_endpoints_if_none() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        fs::create_dir_all(volume.tls()).unwrap();
        fs::create_dir_all(volume.endpoints()).unwrap();
        fs::write(volume.endpoint_set("up"), r#"{"protocol":"HTTP","endpoints":{"addresses":["10.0.0.1:80"]}}"#)
            .unwrap();
        for slot in ["default", "shop"] {
            fs::write(volume.tls_slot(slot), [pem("CERTIFICATE", slot), pem("PRIVATE KEY", slot)].concat()).unwrap();
        }
        let source = Source::start(&volume, Names::system()).await.unwrap();
        let certificates = Certificates {
            exact: [("shop.example", "shop"), ("gone.example", "gone")]
                .map(|(name, slot)| (name.to_owned(), slot.to_owned()))
                .into(),
            default: "default".to_owned(),
            ..Certificates::default()
        };
        let view = View { volume: &volume, source: &source, certificates: &certificates };
        let shown = |name: &str| {
            let secret = view.resource(Kind::Secret, name).unwrap();
            let secret = Secret::decode(secret.resource.as_ref().unwrap().value.as_slice()).unwrap();
            let Some(Type::TlsCertificate(pair)) = secret.r#type else { panic!("no pair") };
            let Some(Specifier::InlineBytes(chain)) = pair.certificate_chain.unwrap().specifier else { panic!() };
            (secret.name, String::from_utf8(chain).unwrap())
        };
        for (name, slot) in
            [("shop.example", "shop"), ("unknown.example", "default"), ("gone.example", "default"), ("*", "default")]
        {
            assert_eq!(shown(name), (name.to_owned(), pem("CERTIFICATE", slot)));
        }

        let endpoints = |id: &str| {
            let resource = view.resource(Kind::Endpoints, id).unwrap();
            let any = resource.resource.as_ref().unwrap();
            ClusterLoadAssignment::decode(any.value.as_slice())
                .unwrap()
                .endpoints
                .iter()
                .map(|at| at.lb_endpoints.len())
                .sum::<usize>()
        };
        assert_eq!((endpoints("up"), endpoints("nobody knows")), (1, 0));
    }
}
