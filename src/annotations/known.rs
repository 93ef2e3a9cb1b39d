//! Every annotation of ingress-nginx that no family has built yet, so that none is ever passed over in silence.
//!
//! Building one moves its row into the [`Spec`](super::Spec) of a family. A test checks that the rows and the families
//! together are the whole list, without overlap. The ConfigMap has its own list, [`super::known_settings`].
//!
//! **What counts as protecting**, so that its routes answer 503 as long as it is not built: whatever decides who may
//! come. That is authentication, client certificates and source ranges; and a snippet that says so in nginx's own words
//! (`deny`, `auth_request`, `return 403` …). Told and served without: what bounds the load of those who may come
//! (`limit-*`: a limit must not become an outage), what goes by what clients say of themselves (`block-user-agents`,
//! `block-referers`: whoever wants to says something else), and what looks at the content of requests
//! (ModSecurity: a second line of defence behind the application's own). Their authors learn of it on the object.

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
    /// It is a piece of nginx's configuration, which protects if it restricts who may come.
    snippet: bool,
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

    pub(super) const fn snippet(self) -> Self {
        Self { snippet: true, ..self }
    }

    pub(super) const fn pointless(self, why: &'static str) -> Self {
        Self { pointless: Some(why), ..self }
    }

    pub(super) const fn unless(self, value: &'static str) -> Self {
        Self { unless: value, ..self }
    }

    /// Whether it is a piece of nginx's configuration, which may protect or not.
    pub fn is_snippet(&self) -> bool {
        self.snippet
    }

    /// Whether it protects with this value.
    pub fn protects_with(&self, text: &str) -> bool {
        self.protects || (self.snippet && restricts(text))
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
    Known { name, risk, protects: false, snippet: false, pointless: None, unless: "" }
}

/// Whether a piece of nginx's configuration has a directive by which somebody may not come. Rather too often than not.
fn restricts(snippet: &str) -> bool {
    const DIRECTIVES: [&str; 9] = [
        "allow",
        "deny",
        "satisfy",
        "internal",
        "secure_link",
        "ssl_verify_client",
        "valid_referers",
        "access_by_lua_block",
        "access_by_lua_file",
    ];
    const REFUSALS: [&str; 4] = ["401", "403", "404", "444"];
    let words = || snippet.split(|c: char| c.is_whitespace() || matches!(c, ';' | '{' | '}')).filter(|w| !w.is_empty());
    let refuses = words().zip(words().skip(1)).any(|(word, next)| word == "return" && REFUSALS.contains(&next));
    refuses || words().any(|word| DIRECTIVES.contains(&word) || word.starts_with("auth_"))
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
    annotation("server-snippet", Risk::Critical).snippet(),
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
    annotation("configuration-snippet", Risk::Critical).snippet(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_protects_where_it_says_who_may_not_come() {
        let snippet = known("configuration-snippet", Risk::Critical).snippet();
        for protecting in [
            "deny all;",
            "  allow 10.0.0.0/8;\ndeny\tall;",
            "if ($http_x_key != secret) { return 403; }",
            "auth_request /auth;",
            "location /admin { return 401; }",
            "satisfy any;",
        ] {
            assert!(snippet.protects_with(protecting), "{protecting}");
        }
        for plain in
            ["add_header X-A b;", "more_set_headers \"X: allowed\";", "return 301 https://b;", "proxy_buffering off;"]
        {
            assert!(!snippet.protects_with(plain), "{plain}");
        }
        assert!(!known("mirror-target", Risk::High).protects_with("deny all;"));
    }
}
