//! Where the outside finds us: the addresses that go into the status of Ingresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::networking::v1::IngressLoadBalancerIngress;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};

use anyhow::Context as _;

use crate::value::Value as _;
use crate::value::host::Hostname;
use crate::value::reference::ObjectName;

/// An address as it stands in a status. Ordered: names before addresses, as ingress-nginx wrote them.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Address {
    /// A DNS name.
    Name(String),
    /// An IP address.
    Ip(IpAddr),
}

impl Address {
    /// Reads an address or a name; `None` for what is neither.
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(ip) => Some(Self::Ip(ip)),
            Err(_) => Hostname::parse(text).ok().map(|name| Self::Name(name.as_str().to_owned())),
        }
    }

    /// As the API has it.
    pub fn entry(&self) -> IngressLoadBalancerIngress {
        let (hostname, ip) = match self {
            Self::Name(name) => (Some(name.clone()), None),
            Self::Ip(ip) => (None, Some(ip.to_string())),
        };
        IngressLoadBalancerIngress { hostname, ip, ports: None }
    }
}

/// Where the addresses come from, first match: given ones, a Service, the nodes of our Pods.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// `--publish-status-address`.
    Given(BTreeSet<Address>),
    /// `--publish-service`.
    Service(ObjectName),
    /// The nodes of all ready Pods like ours; a node's internal address first with `internal`.
    Nodes {
        /// Our own Pod: its labels say which ones are like ours.
        pod: ObjectName,
        /// `--report-node-internal-ip-address`.
        internal: bool,
    },
}

/// The addresses of a Service, by its type.
pub fn of_service(service: &Service) -> BTreeSet<Address> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let external = || spec.external_ips.iter().flatten().filter_map(|ip| Address::parse(ip));
    let cluster = || spec.cluster_ip.iter().filter(|ip| *ip != "None").filter_map(|ip| Address::parse(ip)).collect();
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.iter().filter_map(|name| Address::parse(name)).collect(),
        Some("LoadBalancer") => {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let entries = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
            let given = entries.flat_map(|entry| entry.ip.iter().chain(&entry.hostname));
            given.filter_map(|text| Address::parse(text)).chain(external()).collect()
        }
        Some("NodePort") => {
            let found: BTreeSet<Address> = external().collect();
            if found.is_empty() { cluster() } else { found }
        }
        _ => cluster(),
    }
}

/// The addresses of the nodes of all ready Pods like `pod`; a Pod's own where its node has none or may not be read.
///
/// # Errors
/// The Pod or its like cannot be read.
pub async fn of_nodes(client: &Client, pod: &ObjectName, internal: bool) -> anyhow::Result<BTreeSet<Address>> {
    let mut addresses = BTreeSet::new();
    let nodes: Api<Node> = Api::all(client.clone());
    for peer in peers(client, pod).await?.iter().filter(|peer| ready(peer)) {
        let node = peer.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let found = match node {
            Some(name) => nodes.get(name).await.map(|node| of_node(&node, internal)).unwrap_or_default(),
            None => BTreeSet::new(),
        };
        if found.is_empty() {
            let own = peer.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            addresses.extend(own.and_then(Address::parse));
        }
        addresses.extend(found);
    }
    Ok(addresses)
}

/// How many Pods like `pod` run besides it: whether somebody else serves when it stops.
///
/// # Errors
/// The Pod or its like cannot be read.
pub async fn others(client: &Client, pod: &ObjectName) -> anyhow::Result<usize> {
    let peers = peers(client, pod).await?;
    let others = peers.iter().filter(|peer| peer.name_any() != pod.name.as_str());
    Ok(others.filter(|peer| peer.metadata.deletion_timestamp.is_none() && phase(peer) == Some("Running")).count())
}

/// All Pods with the labels of `pod`, without those that differ between revisions.
async fn peers(client: &Client, pod: &ObjectName) -> anyhow::Result<Vec<Pod>> {
    const OF_A_REVISION: [&str; 3] = ["pod-template-hash", "controller-revision-hash", "pod-template-generation"];
    let namespace = pod.namespace.as_ref().context("a Pod has a namespace")?;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace.as_str());
    let own = api.get(pod.name.as_str()).await.with_context(|| format!("reading our own Pod {pod}"))?;
    let labels = own.labels().iter().filter(|(key, _)| !OF_A_REVISION.contains(&key.as_str()));
    // Versions come and go with upgrades; a replica of another version serves the same Ingresses.
    let labels = labels.filter(|(key, _)| !matches!(key.as_str(), "app.kubernetes.io/version" | "helm.sh/chart"));
    let selector: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    let list = api.list(&ListParams::default().labels(&selector.join(","))).await;
    Ok(list.with_context(|| format!("listing the Pods like {pod}"))?.items)
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    phase(pod) == Some("Running") && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn of_node(node: &Node, internal: bool) -> BTreeSet<Address> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let of = |kind: &str| -> BTreeSet<Address> {
        let some = all.into_iter().flatten().filter(|address| address.type_ == kind);
        some.filter_map(|address| Address::parse(&address.address)).collect()
    };
    let (first, second) = if internal { ("InternalIP", "ExternalIP") } else { ("ExternalIP", "InternalIP") };
    let found = of(first);
    if found.is_empty() { of(second) } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: serde_json::Value) -> Service {
        serde_json::from_value(json).unwrap()
    }

    fn check(json: serde_json::Value, want: &[&str]) {
        let want: BTreeSet<Address> = want.iter().map(|text| Address::parse(text).unwrap()).collect();
        assert_eq!(of_service(&service(json)), want);
    }

    #[test]
    fn a_service_is_published_by_its_type() {
        use serde_json::json;
        check(json!({"spec": {"type": "ExternalName", "externalName": "lb.example.com"}}), &["lb.example.com"]);
        check(json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}}), &["10.0.0.1"]);
        check(json!({"spec": {"type": "ClusterIP", "clusterIP": "None"}}), &[]);
        check(json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1"}}), &["10.0.0.1"]);
        check(json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "externalIPs": ["1.2.3.4"]}}), &["1.2.3.4"]);
        check(
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["1.2.3.4"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"hostname": "a.example.com"}]}}}),
            &["1.2.3.4", "5.6.7.8", "a.example.com"],
        );
        check(json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}}), &[]);
    }

    #[test]
    fn a_node_is_published_by_the_wanted_kind_of_address() {
        let node: Node = serde_json::from_value(serde_json::json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "1.2.3.4"}, {"type": "Hostname", "address": "n"}]}}))
        .unwrap();
        assert_eq!(of_node(&node, false), BTreeSet::from([Address::parse("1.2.3.4").unwrap()]));
        assert_eq!(of_node(&node, true), BTreeSet::from([Address::parse("10.0.0.1").unwrap()]));
    }
}
