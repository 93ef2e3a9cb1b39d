//! Certificates and the slots that serve them.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::value::host::Hostname;
use crate::value::reference::{Name, ObjectName};

/// Bytes that may never be printed. `Debug` and `Serialize` show a digest only.
#[derive(Clone, Eq, PartialEq)]
pub struct PrivateBytes(Arc<[u8]>);

impl PrivateBytes {
    /// Takes the bytes into custody.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for a file with mode 0600 and for nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted sha256:{}]", &hex(&Sha256::digest(&self.0))[..12])
    }
}

impl Serialize for PrivateBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

/// A chain with the key that fits its first certificate, parsed: whatever is in one of these, a proxy can serve.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Certificate {
    /// SHA-256 over chain and key, in hexadecimal digits.
    pub digest: String,
    /// The names it is for: lower case, wildcards as `*.example.com`, sorted and none twice. From the SANs, or from the
    /// CN when there are none.
    pub names: Vec<String>,
    /// First second of its validity, in seconds since 1970.
    pub not_before: i64,
    /// Last second of its validity, in seconds since 1970.
    pub not_after: i64,
    /// Serial number of the leaf in hexadecimal digits, for metrics.
    pub serial: String,
    /// Common name of the leaf's issuer, for metrics. Anybody's text.
    pub issuer: String,
    /// Chain and key as one PEM file, normalised: what `live/tls/<slot>.pem` holds.
    pub pem: PrivateBytes,
}

impl Certificate {
    /// Parses `tls.crt` and `tls.key` of a Secret. The error ends a sentence that begins with the Secret's name.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`tls.crt` is no PEM: {error}"))?;
        let Some(leaf) = chain.first() else {
            return Err("`tls.crt` holds no certificate".to_owned());
        };
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("`tls.key` is no private key: {error}"))?;
        for (n, certificate) in chain.iter().enumerate() {
            let whole = X509Certificate::from_der(certificate).is_ok_and(|(rest, _)| rest.is_empty());
            if !whole {
                return Err(format!("certificate {} of `tls.crt` cannot be parsed", n + 1));
            }
        }
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| format!("`tls.crt` cannot be parsed: {error}"))?;
        let signing = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| format!("`tls.key` is of no supported kind: {error}"))?;
        match rustls::sign::CertifiedKey::new(chain.clone(), signing).keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err("`tls.key` does not belong to the first certificate of `tls.crt`".to_owned());
            }
            Err(error) => return Err(format!("`tls.key` and `tls.crt` do not fit: {error}")),
        }
        let pem = pem(&chain, &key);
        Ok(Self {
            digest: hex(&Sha256::digest(&pem)),
            names: names(&parsed),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            serial: hex(parsed.raw_serial()),
            issuer: common_name(parsed.issuer()),
            pem: PrivateBytes::new(pem),
        })
    }

    /// Whether a client that asks for `host` accepts it: a SAN of that name, or a wildcard for its last label.
    pub fn covers(&self, host: &Hostname) -> bool {
        self.has(host.as_str()) || host.parent().is_some_and(|parent| self.covers_wildcard(&parent))
    }

    /// Whether it is good for every name of `*.parent`.
    pub fn covers_wildcard(&self, parent: &Hostname) -> bool {
        self.has(&format!("*.{parent}"))
    }

    /// A certificate may be for thousands of names and serve as many hosts.
    fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut sans: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if !sans.is_empty() {
        sans.sort();
        sans.dedup();
        return sans;
    }
    let cn = common_name(certificate.subject()).to_ascii_lowercase();
    if cn.is_empty() { Vec::new() } else { vec![cn] }
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default().to_owned()
}

/// Writes chain and key anew, so that nothing but certificates and one key of the given bytes reaches a file.
fn pem(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Vec<u8> {
    use base64::Engine as _;
    let mut out = String::new();
    let mut block = |label: &str, der: &[u8]| {
        out.push_str(&format!("-----BEGIN {label}-----\n"));
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        for line in text.as_bytes().chunks(64) {
            out.extend(line.iter().map(|&b| char::from(b)));
            out.push('\n');
        }
        out.push_str(&format!("-----END {label}-----\n"));
    };
    for certificate in chain {
        block("CERTIFICATE", certificate);
    }
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    block(label, key.secret_der());
    out.into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// The name of a slot: stable for one Secret, safe as a file name and as a word of a configuration.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct SlotId(Arc<str>);

impl SlotId {
    /// The slot of the default certificate.
    pub fn default_slot() -> Self {
        Self("default".into())
    }

    /// The slot of a Secret.
    pub fn of(secret: &ObjectName) -> Self {
        let namespace = secret.namespace.as_ref().map_or("", Name::as_str);
        let mut hash = Sha256::new();
        for part in [namespace, secret.name.as_str()] {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hex(&hash.finalize())[..24].into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a slot serves at this moment. Live data: it reaches the proxy through `live/tls` and never through a release.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Slot {
    /// The Secret; `None` for a generated default certificate.
    pub secret: Option<ObjectName>,
    /// Its pair; `None`: there is no usable one. While the Secret exists the last good pair then stays, else the slot serves the default.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether the Secret exists, so that a broken update keeps the last good pair.
    pub exists: bool,
    /// What is served when there is neither a usable pair nor a last good one. Only the default slot has it; the others
    /// serve what the default slot serves.
    pub fallback: Option<Arc<Certificate>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn pair(names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_is_parsed_and_its_names_are_known() {
        let (chain, key) = pair(&["Shop.example.com", "*.dev.example.com"]);
        let certificate = Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        for (host, covered) in [
            ("shop.example.com", true),
            ("a.dev.example.com", true),
            ("a.b.dev.example.com", false),
            ("dev.example.com", false),
        ] {
            assert_eq!(certificate.covers(&Hostname::parse(host).unwrap()), covered, "{host}");
        }
        assert!(certificate.covers_wildcard(&Hostname::parse("dev.example.com").unwrap()));
        let again = Certificate::parse(certificate.pem.expose(), certificate.pem.expose()).unwrap();
        assert_eq!(again, certificate);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_sentence() {
        let (chain, key) = pair(&["a.b"]);
        let (_, other) = pair(&["a.b"]);
        let wrong = |chain: &str, key: &str| Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(wrong(&chain, &other), "`tls.key` does not belong to the first certificate of `tls.crt`");
        assert_eq!(wrong("", &key), "`tls.crt` holds no certificate");
        assert!(wrong(&chain, "").starts_with("`tls.key` is no private key"));
        assert!(wrong(&chain[..chain.len() / 2], &key).starts_with("`tls.crt`"));
    }

    #[test]
    fn keys_are_never_printed() {
        let (chain, key) = pair(&["a.b"]);
        let certificate = Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        let shown = format!("{certificate:?} {}", serde_json::to_string(&certificate).unwrap());
        assert!(shown.contains("[redacted sha256:") && !shown.contains("PRIVATE"), "{shown}");
    }
}
