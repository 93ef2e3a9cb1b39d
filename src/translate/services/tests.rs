//! From a Service and a port to an upstream, and what is told about everything that is missing.

use crate::settings::Flags;
use crate::snapshot::Origin;
use crate::translate::testing::Case;

/// Objects beside an Ingress `a` with one path for each backend.
fn case(objects: &str, backends: &[&str]) -> Case {
    let paths: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(n, backend)| format!("{{path: /{n}, pathType: Exact, backend: {backend}}}"))
        .collect();
    Case::of(&format!(
        "{objects}\n---\n{{kind: Ingress, metadata: {{name: a}}, spec: {{rules: [{{http: {{paths: [{}]}}}}]}}}}",
        paths.join(", ")
    ))
}

fn check(objects: &str, backends: &[&str], expected: &str) {
    shows(&case(objects, backends), expected);
}

fn shows(case: &Case, expected: &str) {
    let (routes, problems) = expected.split_once('!').map_or((expected, String::new()), |(r, p)| (r, format!("!{p}")));
    case.shows(&format!("*\n{routes}\n^ / -> 404\n{problems}"));
}

const TWO: &str = "
    {kind: Service, metadata: {name: two}, spec: {ports: [
      {name: main, port: 80, targetPort: 8080}, {name: admin, port: 81, targetPort: adm},
      {name: dns, port: 53, protocol: UDP}]}}
    ---
    {kind: EndpointSlice, metadata: {name: two-a, labels: {kubernetes.io/service-name: two}}, addressType: IPv4,
     ports: [{name: main, port: 8080}, {name: admin, port: 9000}, {name: dns, port: 53, protocol: UDP}],
     endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}, {addresses: [10.0.0.2], conditions: {ready: false}}]}
    ---
    {kind: EndpointSlice, metadata: {name: two-b, labels: {kubernetes.io/service-name: two}}, addressType: IPv6,
     ports: [{name: main, port: 8080, protocol: TCP}], endpoints: [{addresses: ['2001:db8::1']}, {addresses: ['2001:db8::1']}]}";

#[test]
fn ports_are_found_by_number_and_by_name_and_by_what_they_lead_to() {
    check(
        TWO,
        &["svc(two:80)", "svc(two:main)", "svc(two:admin)", "svc(two:8080)", "svc(two:adm)"],
        r#"
        = /0 -> shop/two:80 [10.0.0.1:8080 [2001:db8::1]:8080]
        = /1 -> shop/two:80 [10.0.0.1:8080 [2001:db8::1]:8080]
        = /2 -> shop/two:81 [10.0.0.1:9000]
        = /3 -> shop/two:80 [10.0.0.1:8080 [2001:db8::1]:8080]
        = /4 -> shop/two:81 [10.0.0.1:9000]
        ! notice PortNotFound spec.rules[0].http.paths[3].backend.service.port Ingress shop/a: 8080 is no port of Service shop/two but the target of its port 80; it must be 80; port 80 is used
        ! notice PortNotFound spec.rules[0].http.paths[4].backend.service.port Ingress shop/a: adm is no port of Service shop/two but the target of its port 81; it must be 81; port 81 is used
        "#,
    );
    let upstreams = case(TWO, &["svc(two:80)", "svc(two:main)"]).translated().config.upstreams;
    assert_eq!(upstreams.len(), 1, "by number and by name it is one upstream");
}

#[test]
fn what_is_missing_has_an_upstream_without_endpoints_and_is_told() {
    check(
        TWO,
        &["svc(none:80)", "svc(two:82)", "svc(two:nope)", "svc(two:53)"],
        r#"
        = /0 -> shop/none:80 [none]
        = /1 -> shop/two:82 [none]
        = /2 -> shop/two:nope [none]
        = /3 -> shop/two:53 [none]
        ! degraded ServiceNotFound spec.rules[0].http.paths[0].backend.service.name Ingress shop/a: Service shop/none does not exist; it must be in the Ingress's namespace; requests for it are answered with 503
        ! degraded PortNotFound spec.rules[0].http.paths[1].backend.service.port Ingress shop/a: Service shop/two has no port 82; it must be the number or the name of one of its ports; requests for it are answered with 503
        ! degraded PortNotFound spec.rules[0].http.paths[2].backend.service.port Ingress shop/a: Service shop/two has no port nope; it must be the number or the name of one of its ports; requests for it are answered with 503
        ! degraded PortNotFound spec.rules[0].http.paths[3].backend.service.port Ingress shop/a: port 53 of Service shop/two is "UDP"; only TCP ports can be served; requests for it are answered with 503
        "#,
    );
}

#[test]
fn a_service_without_a_ready_endpoint_is_told_and_stays() {
    check(
        "
        {kind: Service, metadata: {name: web}, spec: {clusterIP: None, ports: [{port: 80}]}}
        ---
        {kind: EndpointSlice, metadata: {name: web-a, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
         ports: [{name: '', port: 80}],
         endpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}]}
        ---
        {kind: Service, metadata: {name: new}, spec: {ports: [{port: 80}]}}
        ",
        &["svc(web:80)", "svc(new:80)"],
        "
        = /0 -> shop/web:80 [none]
        = /1 -> shop/new:80 [none]
        ! degraded NoEndpoints spec.rules[0].http.paths[0].backend.service.name Ingress shop/a: Service shop/web has no endpoint that is ready; 1 is not ready; requests for it are answered with 503
        ! degraded NoEndpoints spec.rules[0].http.paths[1].backend.service.name Ingress shop/a: Service shop/new has no endpoint that is ready; it must have one; requests for it are answered with 503
        ",
    );
}

#[test]
fn slices_of_other_services_namespaces_and_kinds_do_not_count() {
    check(
        "
        {kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}
        ---
        {kind: EndpointSlice, metadata: {name: a, namespace: other, labels: {kubernetes.io/service-name: web}},
         addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.0.0.1]}]}
        ---
        {kind: EndpointSlice, metadata: {name: b}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.0.0.2]}]}
        ---
        {kind: EndpointSlice, metadata: {name: c, labels: {kubernetes.io/service-name: web}},
         addressType: FQDN, ports: [{port: 80}], endpoints: [{addresses: [a.example.com]}]}
        ---
        {kind: EndpointSlice, metadata: {name: d, labels: {kubernetes.io/service-name: web}},
         addressType: IPv4, ports: [{port: 80}, {port: 0}, {name: x, port: 81}, {}], endpoints: [{addresses: [nonsense]}, {addresses: [10.0.0.3]}]}
        ",
        &["svc(web:80)"],
        r#"
        = /0 -> shop/web:80 [10.0.0.3:80]
        ! degraded NotSupported addressType EndpointSlice shop/c: addressType "FQDN" is not served; it must be IPv4 or IPv6; the slice is left out
        ! degraded InvalidValue endpoints[0].addresses[0] EndpointSlice shop/d: address "nonsense" is no IP address; it must be one; no request is sent there
        "#,
    );
}

#[test]
fn endpoints_of_the_proxy_itself_are_refused_and_told() {
    let objects = "
        {kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}
        ---
        {kind: EndpointSlice, metadata: {name: web, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
         ports: [{port: 10254}], endpoints: [{addresses: [127.0.0.1]}, {addresses: [127.0.0.2]}, {addresses: [169.254.169.254]}]}";
    let problems = |case: &Case| case.translated().problems.iter().map(|p| p.reason.snake_case()).collect::<Vec<_>>();
    let mut case = case(objects, &["svc(web:80)"]);
    assert_eq!(problems(&case), ["endpoint_refused", "no_endpoints"]);
    assert_eq!(
        case.told()[0],
        "EndpointSlice shop/web: endpoint 127.0.0.1:10254 is a loopback address, which means the proxy itself; it must \
         be an address outside of the proxy (and 2 others of the slice); no request is sent there"
    );
    case.snapshot.origin = Origin::Files;
    shows(
        &case,
        "
        = /0 -> shop/web:80 [127.0.0.1:10254 127.0.0.2:10254]
        ! rejected EndpointRefused endpoints[2].addresses[0] EndpointSlice shop/web: endpoint 169.254.169.254:10254 is link-local; it must be an address outside of the proxy; no request is sent there
        ",
    );
    case.flags.own_ports.insert(10254);
    assert_eq!(problems(&case), ["endpoint_refused", "no_endpoints"]);
}

const EXTERNAL: &str = "
    {kind: Service, metadata: {name: ext}, spec: {type: ExternalName, externalName: Example.com., ports: [{name: web, port: 8080}]}}
    ---
    {kind: Service, metadata: {name: self}, spec: {type: ExternalName, externalName: localhost}}";

#[test]
fn external_names_are_looked_up_by_the_agent() {
    check(
        EXTERNAL,
        &["svc(ext:443)", "svc(ext:web)", "svc(ext:nope)", "svc(self:80)"],
        r#"
        = /0 -> shop/ext:443 [example.com.:443]
        = /1 -> shop/ext:8080 [example.com.:8080]
        = /2 -> shop/ext:nope [none]
        = /3 -> shop/self:80 [none]
        ! degraded PortNotFound spec.rules[0].http.paths[2].backend.service.port Ingress shop/a: Service shop/ext has no port nope; it must be the number or the name of one of its ports; requests for it are answered with 503
        ! degraded NoEndpoints spec.rules[0].http.paths[3].backend.service.name Ingress shop/a: Service shop/self has an external name that cannot be used; it must have a good one; requests for it are answered with 503
        ! rejected InvalidBackend spec.externalName Service shop/self: externalName "localhost" means the proxy itself; it must be a DNS name; the Service has no endpoints; requests for it are answered with 503
        "#,
    );
}

#[test]
fn external_names_can_be_switched_off() {
    let mut case = case(EXTERNAL, &["svc(ext:443)"]);
    case.flags = Flags { disable_svc_external_name: true, ..case.flags };
    shows(
        &case,
        "
        = /0 -> shop/ext:443 [none]
        ! degraded NoEndpoints spec.rules[0].http.paths[0].backend.service.name Ingress shop/a: Service shop/ext is of the type ExternalName, which is switched off here (`--disable-svc-external-name`); it must be of another type; requests for it are answered with 503
        ",
    );
}

#[test]
fn backends_that_are_incomplete_answer_503_and_are_told() {
    check(
        TWO,
        &[
            "{}",
            "{service: {name: two}}",
            "{service: {name: two, port: {}}}",
            "{service: {name: two, port: {number: 80, name: main}}}",
            "{service: {name: two, port: {number: 65536}}}",
            "{service: {name: two, port: {name: 'a b'}}}",
            "{service: {name: 'Two/x', port: {number: 80}}}",
            "{service: {name: two, port: {number: 80}}, resource: {kind: ConfigMap, name: x}}",
            "{resource: {apiGroup: k8s.example.com, kind: StorageBucket, name: b}}",
            "{resource: {kind: Secret, name: b}}",
            "{resource: {kind: ConfigMap, name: none}}",
        ],
        r#"
        = /0 -> 503
        = /1 -> 503
        = /10 -> 503
        = /2 -> 503
        = /3 -> 503
        = /4 -> 503
        = /5 -> 503
        = /6 -> 503
        = /7 -> 503
        = /8 -> 503
        = /9 -> 503
        ! rejected InvalidBackend spec.rules[0].http.paths[0].backend Ingress shop/a: the backend names nothing; it must name a Service; requests for it are answered with 503
        ! degraded ConfigMapNotFound spec.rules[0].http.paths[10].backend.resource.name Ingress shop/a: ConfigMap shop/none does not exist; it must be in the Ingress's namespace; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[1].backend.service.port Ingress shop/a: the Service has no port; it must have a number or a name; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[2].backend.service.port Ingress shop/a: the port has neither name nor number; it must have one of them; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[3].backend.service.port Ingress shop/a: the port has a name ("main") and a number (80); it must have one of them; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[4].backend.service.port Ingress shop/a: port 65536 is no port; it must be a number from 1 to 65535; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[5].backend.service.port Ingress shop/a: port "a b" is not a name of a port; it must be a name of letters, digits and `-`; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[6].backend.service.name Ingress shop/a: Service "Two/x" is not a name of an object; it must be a DNS name of lower-case letters, digits, `-` and `.`; requests for it are answered with 503
        ! rejected InvalidBackend spec.rules[0].http.paths[7].backend Ingress shop/a: the backend names a Service and a resource; it must name one of them; requests for it are answered with 503
        ! rejected UnsupportedBackend spec.rules[0].http.paths[8].backend.resource.kind Ingress shop/a: "StorageBucket.k8s.example.com" is no kind of backend here; it must be a Service or a ConfigMap; requests for it are answered with 503
        ! rejected UnsupportedBackend spec.rules[0].http.paths[9].backend.resource.kind Ingress shop/a: "Secret" is no kind of backend here; it must be a Service or a ConfigMap; requests for it are answered with 503
        "#,
    );
}

#[test]
fn a_service_says_how_it_is_spoken_to_before_the_ingress_does() {
    let objects =
        TWO.replace("{name: two}", "{name: two, annotations: {nginx.ingress.kubernetes.io/backend-protocol: GRPC}}");
    let upstreams = case(&objects, &["svc(two:80)", "svc(other:80)"]).translated().config.upstreams;
    let protocols: Vec<_> = upstreams.values().map(|u| format!("{} {:?}", u.service, u.protocol)).collect();
    assert!(protocols.contains(&"shop/two Grpc".to_owned()), "{protocols:?}");
    assert!(protocols.contains(&"shop/other Http".to_owned()), "{protocols:?}");
}
