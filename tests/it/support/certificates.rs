//! Certificates for tests: an authority, the pairs it issues, and Secrets that carry them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM.
    pub key: String,
    /// The certificate as it comes over the wire.
    pub der: Vec<u8>,
}

impl Authority {
    /// A new one, unlike any other.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(params, key()).expect("an authority"))
    }

    /// The authority's own certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A pair for these DNS names.
    pub fn issue(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.sign(CertificateParams::new(names).expect("names"))
    }

    /// A pair that expired on 2001-01-01.
    pub fn issue_expired(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }
}

impl Pair {
    /// A `kubernetes.io/tls` Secret of the namespace `default`.
    pub fn secret(&self, name: &str) -> String {
        secret(name, &self.certificate, &self.key)
    }
}

/// A `kubernetes.io/tls` Secret with any text as certificate and key.
pub fn secret(name: &str, certificate: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n---\n",
        STANDARD.encode(certificate),
        STANDARD.encode(key)
    )
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
