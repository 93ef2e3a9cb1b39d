//! Every annotation of ingress-nginx that no family has built yet, so that none is ever passed over in silence.
//!
//! Building one moves its row into the [`Spec`](super::Spec) of a family. A test checks that the rows and the families
//! together are the whole list, without overlap. The ConfigMap has its own list, [`super::known_settings`].

use super::spec::Risk;
use crate::value::Value;

/// A key of ingress-nginx that is not built.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// ingress-nginx's class of risk.
    pub risk: Risk,
    /// It protects: the routes it would protect answer 503.
    pub protects: bool,
    /// Why it will never be built; `None`: not yet.
    pub pointless: Option<&'static str>,
    /// The value that asks for what happens anyway, by our doing or by default of every proxy: then nothing is told.
    /// `false` stands for all that switches off.
    unless: &'static str,
}

impl Known {
    pub(super) const fn protects(self) -> Self {
        Self { protects: true, ..self }
    }

    pub(super) const fn pointless(self, why: &'static str) -> Self {
        Self { pointless: Some(why), ..self }
    }

    pub(super) const fn unless(self, value: &'static str) -> Self {
        Self { unless: value, ..self }
    }

    /// Whether a value asks for what happens anyway.
    pub fn asks_nothing(&self, text: &str) -> bool {
        match self.unless {
            "false" => text == "off" || bool::parse(text) == Ok(false),
            "true" => bool::parse(text) == Ok(true),
            unless => text == unless,
        }
    }
}

pub(super) const fn known(name: &'static str, risk: Risk) -> Known {
    Known { name, risk, protects: false, pointless: None, unless: "" }
}

use known as annotation;

/// A name that ingress-nginx had once, or that people use although it never had it.
#[derive(Clone, Copy, Debug)]
pub struct Legacy {
    /// The name; with a `*` at its end, every name that begins so.
    pub name: &'static str,
    /// What to do instead, as a clause.
    pub instead: &'static str,
}

impl Legacy {
    /// Whether it speaks of this name.
    pub fn is(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.name,
        }
    }
}

pub(super) const fn legacy(name: &'static str, instead: &'static str) -> Legacy {
    Legacy { name, instead }
}

/// The annotations.
pub const ANNOTATIONS: &[Known] = &[
    // Server-wide.
    annotation("server-alias", Risk::High),
    annotation("server-snippet", Risk::Critical),
    annotation("stream-snippet", Risk::Critical),
    annotation("auth-tls-secret", Risk::Medium).protects(),
    annotation("auth-tls-verify-client", Risk::Medium).protects(),
    annotation("auth-tls-verify-depth", Risk::Low).protects(),
    annotation("auth-tls-error-page", Risk::High).protects(),
    annotation("auth-tls-pass-certificate-to-upstream", Risk::Low).protects(),
    annotation("auth-tls-match-cn", Risk::High).protects(),
    annotation("ssl-ciphers", Risk::Low),
    annotation("ssl-prefer-server-ciphers", Risk::Low),
    annotation("ssl-passthrough", Risk::Low).unless("false"),
    annotation("from-to-www-redirect", Risk::Low).unless("false"),
    annotation("app-root", Risk::Medium),
    annotation("proxy-ssl-secret", Risk::Medium),
    annotation("proxy-ssl-ciphers", Risk::Medium),
    annotation("proxy-ssl-name", Risk::High),
    annotation("proxy-ssl-protocols", Risk::Low),
    annotation("proxy-ssl-server-name", Risk::Low),
    annotation("proxy-ssl-verify", Risk::Low).unless("false"),
    annotation("proxy-ssl-verify-depth", Risk::Low),
    // Routing, rewriting, redirects.
    annotation("x-forwarded-prefix", Risk::Medium),
    annotation("preserve-trailing-slash", Risk::Low).unless("false"),
    annotation("use-port-in-redirects", Risk::Low).unless("false"),
    annotation("relative-redirects", Risk::Low).unless("false"),
    annotation("default-backend", Risk::Low),
    annotation("custom-http-errors", Risk::Low),
    annotation("disable-proxy-intercept-errors", Risk::Low).unless("false"),
    annotation("service-upstream", Risk::Low).unless("false"),
    annotation("upstream-vhost", Risk::Low),
    annotation("fastcgi-index", Risk::Medium),
    annotation("fastcgi-params-configmap", Risk::Medium),
    annotation("http2-push-preload", Risk::Low)
        .pointless("no version of nginx since 1.25.1 has it, and browsers have dropped HTTP/2 push"),
    annotation("satisfy", Risk::Low).protects(),
    annotation("connection-proxy-header", Risk::Low),
    annotation("configuration-snippet", Risk::Critical),
    annotation("enable-access-log", Risk::Low).unless("true"),
    annotation("enable-rewrite-log", Risk::Low).unless("false"),
    annotation("mirror-target", Risk::High),
    annotation("mirror-host", Risk::High),
    annotation("mirror-request-body", Risk::Low),
    annotation("enable-cors", Risk::Low).unless("false"),
    annotation("cors-allow-origin", Risk::Medium),
    annotation("cors-allow-methods", Risk::Medium),
    annotation("cors-allow-headers", Risk::Medium),
    annotation("cors-expose-headers", Risk::Medium),
    annotation("cors-allow-credentials", Risk::Low),
    annotation("cors-max-age", Risk::Low),
    annotation("custom-headers", Risk::Medium),
    // Authentication.
    annotation("auth-type", Risk::Low).protects(),
    annotation("auth-secret", Risk::Medium).protects(),
    annotation("auth-secret-type", Risk::Low).protects(),
    annotation("auth-realm", Risk::Medium).protects(),
    annotation("auth-url", Risk::High).protects(),
    annotation("auth-method", Risk::Low).protects(),
    annotation("auth-signin", Risk::High).protects(),
    annotation("auth-signin-redirect-param", Risk::Medium).protects(),
    annotation("auth-response-headers", Risk::Medium).protects(),
    annotation("auth-proxy-set-headers", Risk::Medium).protects(),
    annotation("auth-request-redirect", Risk::Medium).protects(),
    annotation("auth-cache-key", Risk::Medium).protects(),
    annotation("auth-cache-duration", Risk::Medium).protects(),
    annotation("auth-always-set-cookie", Risk::Low).protects().unless("false"),
    annotation("auth-keepalive", Risk::Low).protects().unless("false"),
    annotation("auth-keepalive-share-vars", Risk::Low).protects(),
    annotation("auth-keepalive-requests", Risk::Low).protects(),
    annotation("auth-keepalive-timeout", Risk::Low).protects(),
    annotation("auth-snippet", Risk::Critical).protects(),
    annotation("enable-global-auth", Risk::Low).protects(),
    // Limits.
    annotation("limit-connections", Risk::Low).unless("false"),
    annotation("limit-rps", Risk::Low).unless("false"),
    annotation("limit-rpm", Risk::Low).unless("false"),
    annotation("limit-burst-multiplier", Risk::Low),
    annotation("limit-allowlist", Risk::Low),
    annotation("limit-whitelist", Risk::Low),
    // Balancing, affinity, canary.
    annotation("upstream-hash-by", Risk::High),
    annotation("upstream-hash-by-subset", Risk::Low).unless("false"),
    annotation("upstream-hash-by-subset-size", Risk::Low),
    annotation("affinity", Risk::Low),
    annotation("affinity-mode", Risk::Medium),
    annotation("affinity-canary-behavior", Risk::Low),
    annotation("session-cookie-name", Risk::Medium),
    annotation("session-cookie-path", Risk::Medium),
    annotation("session-cookie-domain", Risk::Medium),
    annotation("session-cookie-expires", Risk::Medium),
    annotation("session-cookie-max-age", Risk::Medium),
    annotation("session-cookie-samesite", Risk::Low),
    annotation("session-cookie-conditional-samesite-none", Risk::Low).unless("false"),
    annotation("session-cookie-secure", Risk::Low),
    annotation("session-cookie-change-on-failure", Risk::Low).unless("false"),
    annotation("canary-weight", Risk::Low),
    annotation("canary-weight-total", Risk::Low),
    annotation("canary-by-header", Risk::Medium),
    annotation("canary-by-header-value", Risk::Medium),
    annotation("canary-by-header-pattern", Risk::Medium),
    annotation("canary-by-cookie", Risk::Medium),
    // Tuning.
    annotation("proxy-http-version", Risk::Low).unless("1.1"),
    annotation("proxy-cookie-domain", Risk::Medium).unless("false"),
    annotation("proxy-cookie-path", Risk::Medium).unless("false"),
    annotation("proxy-redirect-from", Risk::Medium).unless("false"),
    annotation("proxy-redirect-to", Risk::Medium).unless("false"),
    annotation("enable-modsecurity", Risk::Low).unless("false"),
    annotation("enable-owasp-core-rules", Risk::Low).unless("false"),
    annotation("modsecurity-transaction-id", Risk::High),
    annotation("modsecurity-snippet", Risk::Critical),
    annotation("enable-opentelemetry", Risk::Low).unless("false"),
    annotation("opentelemetry-trust-incoming-span", Risk::Low),
    annotation("opentelemetry-operation-name", Risk::Medium),
];

/// Annotations that ingress-nginx has had once.
pub const LEGACY_ANNOTATIONS: &[Legacy] = &[
    legacy("secure-backends", "use `backend-protocol` with the value `HTTPS`"),
    legacy("grpc-backend", "use `backend-protocol` with the value `GRPC`"),
    legacy("add-base-url", "let the application write relative links"),
    legacy("base-url-scheme", "let the application write relative links"),
    legacy("session-cookie-hash", "remove it"),
    legacy("mirror-uri", "use `mirror-target`"),
    legacy("upstream-max-fails", "use `proxy-next-upstream-tries`"),
    legacy("upstream-fail-timeout", "use `proxy-next-upstream-timeout`"),
    legacy("global-rate-limit*", "use `limit-rps` or `limit-rpm`"),
    legacy("enable-influxdb", "use the metrics"),
    legacy("influxdb-*", "use the metrics"),
    legacy("secure-verify-ca-secret", "use `proxy-ssl-secret` and `proxy-ssl-verify`"),
    legacy("enable-opentracing", "use `enable-opentelemetry`"),
    legacy("opentracing-*", "use `enable-opentelemetry`"),
    legacy("enable-dynamic-tls-records", "remove it"),
];
