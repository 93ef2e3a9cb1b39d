//! Who wins, and what answers when nobody does.

use std::sync::Arc;

use crate::settings::Flags;
use crate::translate::testing::{Case, check};

/// Services `s0` to `s2` without endpoints are told about, which is beside the point here: they have one each.
fn with_services(yaml: &str) -> String {
    let mut text = String::new();
    for name in ["s0", "s1", "s2"] {
        text += &format!(
            "{{kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]}}}}\n---\n
             {{kind: EndpointSlice, metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}},
               addressType: IPv4, ports: [{{port: 1}}], endpoints: [{{addresses: [10.0.0.1]}}]}}\n---\n"
        );
    }
    text + yaml
}

fn hosts(yaml: &str, expected: &str) {
    check(&with_services(yaml), &expected.replace('@', "[10.0.0.1:1]"));
}

#[test]
fn the_oldest_wins_path_by_path_and_the_loser_is_told_by_name() {
    hosts(
        r#"
        {kind: Ingress, metadata: {name: a-young, creationTimestamp: "2026-01-02T00:00:00Z"},
         spec: {rules: [{host: h.com, http: {paths: [
           {path: /, pathType: Prefix, backend: svc(s0:80)},
           {path: /young, pathType: Prefix, backend: svc(s0:80)}]}}]}}
        ---
        {kind: Ingress, metadata: {name: z-old, creationTimestamp: "2026-01-01T00:00:00Z"},
         spec: {rules: [{host: h.com, http: {paths: [
           {path: /, pathType: Prefix, backend: svc(s1:80)},
           {path: /young, pathType: Exact, backend: svc(s1:80)}]}}]}}
        "#,
        r#"
        h.com
          = /young -> shop/s1:80 @
          ^ /young -> shop/s0:80 @
          ^ / -> shop/s1:80 @
        *
          ^ / -> 404
        ! degraded ConflictLost spec.rules[0].http.paths[0].path Ingress shop/a-young: the Prefix path "/" of host h.com belongs to Ingress shop/z-old, which is older; Ingress shop/z-old answers these requests
        "#,
    );
}

#[test]
fn of_equal_age_the_first_by_namespace_and_name_wins() {
    hosts(
        r#"
        {kind: Ingress, metadata: {name: b, namespace: shop},
         spec: {rules: [{host: h.com, http: {paths: [{path: /, pathType: Prefix, backend: svc(s0:80)}]}}]}}
        ---
        {kind: Ingress, metadata: {name: c, namespace: a},
         spec: {rules: [{host: H.com., http: {paths: [{path: /, pathType: Prefix, backend: svc(s0:80)}]}}]}}
        ---
        {kind: Ingress, metadata: {name: a, namespace: shop},
         spec: {rules: [{host: h.com, http: {paths: [{path: "", pathType: ImplementationSpecific, backend: svc(s1:80)}]}}]}}
        "#,
        r#"
        h.com
          ^ / -> a/s0:80 [none]
        *
          ^ / -> 404
        ! degraded ServiceNotFound spec.rules[0].http.paths[0].backend.service.name Ingress a/c: Service a/s0 does not exist; it must be in the Ingress's namespace; requests for it are answered with 503
        ! degraded ConflictLost spec.rules[0].http.paths[0].path Ingress shop/a: the Prefix path "/" of host h.com belongs to Ingress a/c, which is as old and comes first by name; Ingress a/c answers these requests
        ! degraded ConflictLost spec.rules[0].http.paths[0].path Ingress shop/b: the Prefix path "/" of host h.com belongs to Ingress a/c, which is as old and comes first by name; Ingress a/c answers these requests
        "#,
    );
}

#[test]
fn a_trailing_slash_makes_no_other_prefix_and_a_path_can_stand_twice_in_one_ingress() {
    hosts(
        "
        {kind: Ingress, metadata: {name: a}, spec: {rules: [
          {host: h.com, http: {paths: [{path: /a/, pathType: Prefix, backend: svc(s0:80)}]}},
          {host: h.com, http: {paths: [
            {path: /a, pathType: Prefix, backend: svc(s1:80)},
            {path: /a/, pathType: Exact, backend: svc(s1:80)},
            {path: /a, pathType: Exact, backend: svc(s2:80)}]}}]}}
        ",
        r#"
        h.com
          = /a -> shop/s2:80 @
          = /a/ -> shop/s1:80 @
          ^ /a/ -> shop/s0:80 @
          ^ / -> 404
        *
          ^ / -> 404
        ! degraded ConflictLost spec.rules[1].http.paths[0].path Ingress shop/a: the Prefix path "/a" of host h.com stands in this Ingress already, at spec.rules[0].http.paths[0]; the first one counts
        "#,
    );
}

#[test]
fn hosts_are_exact_or_wildcards_or_all_and_the_catch_all_is_last() {
    hosts(
        r#"
        {kind: Ingress, metadata: {name: a}, spec: {rules: [
          {http: {paths: [{path: /any, pathType: Prefix, backend: svc(s0:80)}]}},
          {host: "*.foo.com", http: {paths: [{path: /, pathType: Prefix, backend: svc(s1:80)}]}},
          {host: "bar.foo.com"},
          {host: "foo.com:80", http: {paths: [{path: /, pathType: Prefix, backend: svc(s2:80)}]}},
          {host: "10.0.0.1"}]}}
        "#,
        r#"
        bar.foo.com
          ^ / -> 404
        *.foo.com
          ^ / -> shop/s1:80 @
        *
          ^ /any -> shop/s0:80 @
          ^ / -> 404
        ! rejected InvalidHost spec.rules[3].host Ingress shop/a: host "foo.com:80" has a port; it must be a DNS name without a port (a rule holds for every port); the rule is not served
        ! rejected InvalidHost spec.rules[4].host Ingress shop/a: host "10.0.0.1" is an IP address; it must be a DNS name; the rule is not served
        "#,
    );
}

/// One default backend with rules, one without.
const DEFAULTS: &str = r#"
    {kind: Ingress, metadata: {name: a-with}, spec: {defaultBackend: svc(s0:80), rules: [
      {host: ruled.com, http: {paths: [{path: /foo, pathType: Prefix, backend: svc(s1:80)}]}},
      {host: whole.com, http: {paths: [{path: /, pathType: Prefix, backend: svc(s1:80)}]}}]}}
    ---
    {kind: Ingress, metadata: {name: b-none}, spec: {rules: [
      {host: none.com, http: {paths: [{path: /foo, pathType: Prefix, backend: svc(s1:80)}]}}]}}
"#;
const ALONE: &str = "\n---\n{kind: Ingress, metadata: {name: z-alone}, spec: {defaultBackend: svc(s2:80)}}";
const RULED: &str = "
    none.com
      ^ /foo -> shop/s1:80 @
      ^ / -> CONTROLLER
    ruled.com
      ^ /foo -> shop/s1:80 @
      ^ / -> shop/s0:80 @
    whole.com
      ^ / -> shop/s1:80 @
";

#[test]
fn a_default_backend_takes_what_is_left_of_its_hosts_and_alone_all_other_hosts() {
    let ruled = RULED.replace("CONTROLLER", "404");
    hosts(&format!("{DEFAULTS}{ALONE}"), &format!("{ruled}*\n^ / -> shop/s2:80 @"));
    // Without one that stands alone, what matches no rule goes to the oldest one there is.
    hosts(DEFAULTS, &format!("{ruled}*\n^ / -> shop/s0:80 @"));
}

#[test]
fn the_controllers_default_backend_comes_after_those_of_ingresses() {
    let case = |yaml: &str| {
        let mut case = Case::of(&with_services(yaml));
        case.flags.default_backend_service = Some("shop/s1".parse_object());
        case
    };
    let ruled = RULED.replace("CONTROLLER", "shop/s1:80 @").replace('@', "[10.0.0.1:1]");
    case(DEFAULTS).shows(&format!("{ruled}*\n^ / -> shop/s1:80 [10.0.0.1:1]"));
    case(&format!("{DEFAULTS}{ALONE}")).shows(&format!("{ruled}*\n^ / -> shop/s2:80 [10.0.0.1:1]"));
    let mut missing = case("{kind: Ingress, metadata: {name: a}, spec: {rules: [{host: a.com}]}}");
    missing.flags.default_backend_service = Some("shop/none".parse_object());
    missing.shows(
        "
        a.com
          ^ / -> 404
        *
          ^ / -> 404
        ! degraded ServiceNotFound Service shop/none: must exist and have a TCP port, because `--default-backend-service` names it; it does not; what no Ingress answers is answered with 404
        ",
    );
}

#[test]
fn of_several_default_backends_of_one_host_the_oldest_counts() {
    hosts(
        r#"
        {kind: Ingress, metadata: {name: a}, spec: {defaultBackend: svc(s0:80), rules: [{host: h.com}]}}
        ---
        {kind: Ingress, metadata: {name: b}, spec: {defaultBackend: svc(s1:80), rules: [{host: h.com}]}}
        ---
        {kind: Ingress, metadata: {name: c}, spec: {defaultBackend: svc(s1:80)}}
        ---
        {kind: Ingress, metadata: {name: d}, spec: {defaultBackend: svc(s2:80)}}
        ---
        {kind: Ingress, metadata: {name: e}, spec: {rules: [{http: {paths: [
          {path: /, pathType: Exact, backend: svc(s0:80)}]}}]}}
        "#,
        r#"
        h.com
          ^ / -> shop/s0:80 @
        *
          = / -> shop/s0:80 @
          ^ / -> shop/s1:80 @
        ! degraded ConflictLost spec.defaultBackend Ingress shop/b: the default backend of host h.com belongs to Ingress shop/a, which is as old and comes first by name; Ingress shop/a answers these requests
        ! degraded ConflictLost spec.defaultBackend Ingress shop/d: the default backend of every host that has no rule of its own belongs to Ingress shop/c, which is as old and comes first by name; Ingress shop/c answers these requests
        "#,
    );
}

#[test]
fn catch_alls_can_be_switched_off_and_nothing_at_all_is_told() {
    let mut case = Case::of(&with_services(
        r#"
        {kind: Ingress, metadata: {name: a}, spec: {defaultBackend: svc(s0:80), rules: [{host: h.com}]}}
        ---
        {kind: Ingress, metadata: {name: b}, spec: {}}
        ---
        {kind: Ingress, metadata: {name: c}, spec: {rules: [{http: {paths: [
          {path: /x, pathType: Prefix, backend: svc(s0:80)}]}}]}}
        "#,
    ));
    case.flags = Flags { disable_catch_all: true, ..case.flags };
    case.shows(
        r#"
        *
          ^ /x -> shop/s0:80 [10.0.0.1:1]
          ^ / -> 404
        ! rejected OutOfPlace spec.defaultBackend Ingress shop/a: default backends are switched off here (`--disable-catch-all`); it must have rules only; nothing of the Ingress is served
        ! rejected InvalidValue spec Ingress shop/b: has neither rules nor a default backend; it must have one of them; nothing of the Ingress is served
        "#,
    );
}

/// A regular expression that protects one Ingress, two Ingresses on one host, and a wildcard beside it.
const HELD: &str = r#"
    {kind: Ingress, metadata: {name: bad, annotations: {nginx.ingress.kubernetes.io/use-regex: "true"}}, spec: {rules: [
      {host: own.foo.com, http: {paths: [{path: /a, pathType: Prefix, backend: svc(s0:80)}]}},
      {host: both.com, http: {paths: [
        {path: /bad, pathType: Prefix, backend: svc(s0:80)},
        {path: "/[b]", pathType: ImplementationSpecific, backend: svc(s0:80)}]}},
      {http: {paths: [{path: /any, pathType: Exact, backend: svc(s0:80)}]}}]}}
    ---
    {kind: Ingress, metadata: {name: good}, spec: {rules: [
      {host: "*.foo.com", http: {paths: [{path: /, pathType: Prefix, backend: svc(s1:80)}]}},
      {host: both.com, http: {paths: [{path: /, pathType: Prefix, backend: svc(s1:80)}]}}]}}
"#;

#[test]
fn what_is_held_back_answers_503_and_keeps_its_hosts() {
    let mut case = Case::of(&with_services(HELD));
    case.held.0.insert("shop/bad".parse_object(), crate::translate::Form::Closed);
    case.shows(
        "
        both.com
          ^ /bad -> 503
          ^ / -> shop/s1:80 [10.0.0.1:1]
        own.foo.com
          ^ / -> 503
        *.foo.com
          ^ / -> shop/s1:80 [10.0.0.1:1]
        *
          = /any -> 503
          ^ / -> 404
        ",
    );
}

#[test]
fn what_is_held_back_is_served_as_it_was_where_that_is_known() {
    let former = Case::of(
        "{kind: Ingress, metadata: {name: bad}, spec: {rules: [{host: former.com, http: {paths: [
           {path: /, pathType: Prefix, backend: svc(s0:80)}]}}]}}",
    );
    let mut case = Case::of(&with_services(HELD));
    let former = former.snapshot.ingresses.into_values().next().unwrap();
    case.held.0.insert("shop/bad".parse_object(), crate::translate::Form::Former(former));
    let gone = Arc::new(Default::default());
    case.held.0.insert("shop/deleted".parse_object(), crate::translate::Form::Former(gone));
    case.shows(
        "
        both.com
          ^ / -> shop/s1:80 [10.0.0.1:1]
        former.com
          ^ / -> shop/s0:80 [10.0.0.1:1]
        *.foo.com
          ^ / -> shop/s1:80 [10.0.0.1:1]
        *
          ^ / -> 404
        ",
    );
}

#[test]
fn what_protects_and_cannot_be_honoured_closes_every_route() {
    hosts(
        r#"
        {kind: Ingress, metadata: {name: a, annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: "10.0.0.0/33"}},
         spec: {defaultBackend: svc(s1:80), tls: [{hosts: [h.com]}], rules: [{host: h.com, http: {paths: [
           {path: /a, pathType: Prefix, backend: svc(s0:80)}]}}]}}
        "#,
        r#"
        h.com tls default
          ^ /a -> 503
          ^ / -> 503
        *
          ^ / -> 404
        ! rejected ProtectionFailed metadata.annotations[nginx.ingress.kubernetes.io/whitelist-source-range] Ingress shop/a: whitelist-source-range: "10.0.0.0/33" has "10.0.0.0/33", which is no network; it must be IP addresses or networks such as `10.0.0.0/8`, separated by commas; every route of the Ingress answers 503
        "#,
    );
}

trait ParseObject {
    fn parse_object(&self) -> crate::value::reference::ObjectName;
}

impl ParseObject for str {
    fn parse_object(&self) -> crate::value::reference::ObjectName {
        crate::value::Value::parse(self).unwrap()
    }
}
