//! Ciphers up to TLS 1.2: written for OpenSSL, chosen by BoringSSL, which refuses a list with one name it does not know.

use crate::value::tls::Ciphers;

/// What BoringSSL has of the ciphers in common use.
const KNOWN: [&str; 14] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
];

/// What Envoy has of a list, in its order; none: Envoy's own choice.
pub(super) fn known(ciphers: &Ciphers) -> Vec<String> {
    ciphers.common().into_iter().filter(|name| KNOWN.contains(name)).map(str::to_owned).collect()
}
