//! Which certificate a host gets, and what is told about it.

use std::sync::Arc;

use super::*;
use crate::model::Certificate;
use crate::snapshot::TlsSecret;
use crate::translate::testing::{Case, NOW, pair};
use crate::value::reference::ObjectName;

/// An Ingress with these TLS entries and rules for these hosts.
fn ingress(name: &str, tls: &str, hosts: &[&str]) -> String {
    let rules: Vec<_> = hosts.iter().map(|host| format!("{{host: '{host}'}}")).collect();
    let rules = rules.join(", ");
    format!("---\n{{kind: Ingress, metadata: {{name: {name}}}, spec: {{tls: [{tls}], rules: [{rules}]}}}}\n")
}

/// Secrets `one` (one.com), `wild` (*.wild.com) and `broken`.
fn case(yaml: &str) -> Case {
    let case = Case::of(yaml).secret("one", Ok(&["one.com"])).secret("wild", Ok(&["*.wild.com", "wild.com"]));
    case.secret("broken", Err("has no `tls.key`"))
}

fn check(yaml: &str, expected: &str) {
    let (mut hosts, mut problems) = (String::new(), String::new());
    for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix('!') {
            Some(problem) => problems += &format!("!{problem}\n"),
            None => hosts += &format!("{line}\n^ / -> 404{}\n", if line.contains(" tls") { " https" } else { "" }),
        }
    }
    case(yaml).shows(&format!("{hosts}{problems}"));
}

#[test]
fn a_host_is_served_by_the_slot_of_the_secret_that_lists_it() {
    check(
        &ingress(
            "a",
            "{hosts: [One.com.], secretName: one}, {hosts: ['*.wild.com', wild.com], secretName: wild}",
            &["one.com", "*.wild.com", "wild.com", "sub.wild.com", "plain.com"],
        ),
        "
        one.com tls shop/one
        plain.com
        sub.wild.com tls shop/wild
        wild.com tls shop/wild
        *.wild.com tls shop/wild
        *
        ",
    );
}

#[test]
fn what_cannot_be_served_falls_back_to_the_default_certificate_and_is_told() {
    check(
        &ingress(
            "a",
            "{hosts: [other.com], secretName: one}, {hosts: [missing.com], secretName: missing},
             {hosts: [broken.com], secretName: broken}, {hosts: [none.com]}, {hosts: [bad.com], secretName: Not/Good}",
            &["other.com", "missing.com", "broken.com", "none.com", "bad.com"],
        ),
        r#"
        bad.com tls default
        broken.com tls shop/broken
        missing.com tls shop/missing
        none.com tls default
        other.com tls default
        *
        ! degraded CertificateMismatch spec.tls[0].secretName Ingress shop/a: the certificate of Secret shop/one is for "one.com" and not for other.com; it must be for both; the default certificate is served
        ! degraded SecretNotFound spec.tls[1].secretName Ingress shop/a: Secret shop/missing does not exist; it must hold a certificate and its key; the default certificate is served
        ! degraded InvalidCertificate spec.tls[2].secretName Ingress shop/a: Secret shop/broken has no `tls.key`; it must hold a certificate and its key; the last good certificate that it held is served, or else the default one
        ! degraded InvalidReference spec.tls[4].secretName Ingress shop/a: Secret "Not/Good" is not a name of an object; it must be a DNS name of lower-case letters, digits, `-` and `.`; the default certificate is served
        "#,
    );
    let slots = case(&ingress("a", "{hosts: [b.com], secretName: broken}", &["b.com"])).translated().config.slots;
    let slot = slots.values().find(|slot| slot.secret.is_some()).unwrap();
    assert!(slot.exists && slot.certificate.is_none(), "the last good pair stays while the Secret exists");
}

#[test]
fn hosts_that_are_in_no_rule_are_told() {
    check(
        &ingress("a", "{hosts: [one.com, '', 'a b'], secretName: one}, {hosts: ['*.wild.com']}", &["x.com"]),
        r#"
        x.com
        *
        ! degraded TlsHostUnused spec.tls[0].hosts[0] Ingress shop/a: host one.com is in none of the rules; it must be the host of a rule of this Ingress; this Ingress serves no certificate for it
        ! degraded InvalidHost spec.tls[0].hosts[1] Ingress shop/a: host "" is empty; it must be a DNS name, or `*.` and a DNS name; nothing is served for it
        ! degraded InvalidHost spec.tls[0].hosts[2] Ingress shop/a: host "a b" is not a host name; it must be a DNS name, or `*.` and a DNS name; nothing is served for it
        ! degraded TlsHostUnused spec.tls[1].hosts[0] Ingress shop/a: host *.wild.com is in none of the rules; it must be the host of a rule of this Ingress; this Ingress serves no certificate for it
        "#,
    );
}

#[test]
fn a_host_that_is_listed_twice_keeps_its_first_secret() {
    check(
        &ingress(
            "a",
            "{hosts: [one.com, one.com], secretName: one}, {hosts: [one.com], secretName: one},
             {hosts: [one.com], secretName: wild}",
            &["one.com"],
        ),
        "
        one.com tls shop/one
        *
        ! degraded ConflictLost spec.tls[2].hosts[0] Ingress shop/a: host one.com is listed in this Ingress already, at spec.tls[0]; the first one counts
        ",
    );
}

#[test]
fn an_entry_without_hosts_is_for_all_and_certificates_serve_what_they_cover() {
    check(
        &ingress("a", "{secretName: wild}", &["sub.wild.com", "wild.com"]),
        "
        sub.wild.com tls shop/wild
        wild.com tls shop/wild
        *
        ",
    );
    // Not listed, but what is there is for it.
    check(
        &ingress("a", "{hosts: [wild.com], secretName: wild}", &["wild.com", "sub.wild.com", "no.com"]),
        "
        no.com
        sub.wild.com tls shop/wild
        wild.com tls shop/wild
        *
        ",
    );
    check(
        &ingress("a", "{secretName: one}", &[""]),
        "
        * tls default
        ! degraded CertificateMismatch spec.tls[0].secretName Ingress shop/a: Secret shop/one cannot be for hosts that no rule names; a rule must name the host; the default certificate is served
        ",
    );
}

#[test]
fn of_several_ingresses_the_oldest_one_with_tls_decides() {
    let plain = ingress("a", "", &["one.com"]);
    let first = ingress("b", "{hosts: [one.com], secretName: one}", &["one.com"]);
    let same = ingress("c", "{hosts: [one.com], secretName: one}", &["one.com"]);
    let other = ingress("d", "{hosts: [one.com], secretName: missing}", &["one.com"]);
    let elsewhere = ingress("e", "{hosts: [one.com], secretName: wild}", &["e.com"]);
    check(
        &[plain, first, same, other, elsewhere].concat(),
        "
        e.com
        one.com tls shop/one
        *
        ! degraded ConflictLost spec.tls[0].secretName Ingress shop/d: the certificate of host one.com comes from Ingress shop/b, which is as old and comes first by name; the certificate named here is not served for this host
        ! degraded SecretNotFound spec.tls[0].secretName Ingress shop/d: Secret shop/missing does not exist; it must hold a certificate and its key; the default certificate is served
        ! degraded TlsHostUnused spec.tls[0].hosts[0] Ingress shop/e: host one.com is in none of the rules; it must be the host of a rule of this Ingress; this Ingress serves no certificate for it
        ",
    );
}

#[test]
fn certificates_out_of_their_time_are_served_and_told() {
    let mut case = case(&ingress("a", "{hosts: [one.com], secretName: one}", &["one.com"]));
    for (certificate, told) in [
        (pair(&["one.com"], NOW - 1), "has expired on 2027-01-15T07:59:59Z; it must be renewed"),
        (
            Certificate { not_before: NOW + 1, ..pair(&["one.com"], NOW + 2) },
            "is not valid before 2027-01-15T08:00:01Z; it must be valid now",
        ),
    ] {
        let secret = TlsSecret { uid: None, certificate: Ok(Arc::new(certificate)) };
        case.snapshot.secrets.insert(ObjectName::parse("shop/one").unwrap(), Arc::new(secret));
        assert_eq!(
            case.told(),
            [format!(
                "Ingress shop/a: the certificate of Secret shop/one {told}; it is served nevertheless; clients will \
                 refuse it"
            )]
        );
    }
}

#[test]
fn the_default_slot_serves_the_named_secret_or_what_was_generated() {
    let generated = Arc::new(pair(&["generated"], NOW + 1));
    let mut case = case(&ingress("a", "", &["a.com"]));
    case.snapshot.generated_certificate = Some(Arc::clone(&generated));
    let slot = |case: &Case| case.translated().config.slots[&SlotId::default_slot()].clone();
    assert_eq!(slot(&case).certificate, Some(Arc::clone(&generated)));
    for (name, exists, good, told) in [
        ("one", true, true, None),
        (
            "broken",
            true,
            false,
            Some(
                "Secret shop/broken: has no `tls.key`; as `--default-ssl-certificate` it must hold a certificate and its key; the last good certificate that it held is served, or else a generated one",
            ),
        ),
        (
            "none",
            false,
            false,
            Some(
                "Secret shop/none: does not exist; as `--default-ssl-certificate` it must hold a certificate and its key; a generated certificate is served",
            ),
        ),
    ] {
        case.flags.default_ssl_certificate = Some(ObjectName::parse(&format!("shop/{name}")).unwrap());
        let slot = slot(&case);
        assert_eq!((slot.exists, slot.certificate.is_some()), (exists, good), "{name}");
        assert_eq!(slot.fallback, Some(Arc::clone(&generated)), "{name}");
        assert_eq!(case.told(), told.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn redirects_follow_each_ingress_and_the_tls_of_the_host() {
    let annotated = |name: &str, key: &str, value: &str, tls: &str, host: &str, path: &str| {
        format!(
            "---\n{{kind: Ingress, metadata: {{name: {name}, annotations: {{nginx.ingress.kubernetes.io/{key}: '{value}'}}}},
             spec: {{tls: [{tls}], rules: [{{host: {host}, http: {{paths: [
               {{path: {path}, pathType: Exact, backend: {{resource: {{kind: ConfigMap, name: m}}}}}}]}}}}]}}}}\n"
        )
    };
    let yaml = [
        "{kind: ConfigMap, metadata: {name: m}}\n".to_owned(),
        annotated("a", "ssl-redirect", "true", "{hosts: [one.com], secretName: one}", "one.com", "/a"),
        annotated("b", "ssl-redirect", "false", "", "one.com", "/b"),
        annotated("c", "force-ssl-redirect", "true", "", "forced.com", "/c"),
        annotated("d", "ssl-redirect", "true", "", "plain.com", "/d"),
        annotated("e", "ssl-redirect", "false", "{hosts: [off.com]}", "off.com", "/e"),
    ];
    case(&yaml.concat()).shows(
        "
        forced.com
          = /c -> files shop/m https
          ^ / -> 404 https
        off.com tls default
          = /e -> files shop/m
          ^ / -> 404
        one.com tls shop/one
          = /a -> files shop/m https
          = /b -> files shop/m
          ^ / -> 404 https
        plain.com
          = /d -> files shop/m
          ^ / -> 404
        *
          ^ / -> 404
        ",
    );
}
