//! The endpoints of a port: what the EndpointSlices of its Service say, without addresses that must not be reached
//! through the proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::problem::{Kind, Problem, Reason, Subject};
use crate::settings::Flags;
use crate::snapshot::{Origin, Snapshot};
use crate::value::reference::{Name, ObjectName};
use crate::value::shown;

/// The label that names the Service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

/// All EndpointSlices, sorted by namespace and Service: a sorted list is faster to make and to search than a map.
pub struct Slices<'a>(Vec<Slice<'a>>);

struct Slice<'a> {
    /// Namespace and Service.
    of: (&'a str, &'a str),
    name: &'a ObjectName,
    slice: &'a EndpointSlice,
}

/// The endpoints of a port.
#[derive(Debug, Default)]
pub struct Ready {
    /// Those that take requests, sorted, none twice.
    pub addresses: Vec<SocketAddr>,
    /// How many do not.
    pub unready: usize,
}

impl<'a> Slices<'a> {
    /// Indexes all slices.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let indexed = |(name, slice): (&'a ObjectName, &'a Arc<EndpointSlice>)| {
            let service = slice.metadata.labels.as_ref()?.get(SERVICE)?;
            Some(Slice { of: (name.namespace.as_ref()?.as_str(), service), name, slice })
        };
        let mut slices: Vec<_> = snapshot.endpoint_slices.iter().filter_map(indexed).collect();
        // Stable: the slices of a Service stay in the order of their names.
        slices.sort_by(|a, b| a.of.cmp(&b.of));
        Self(slices)
    }

    fn of(&self, service: &ObjectName) -> &[Slice<'a>] {
        let of = (service.namespace.as_ref().map_or("", Name::as_str), service.name.as_str());
        let from = self.0.partition_point(|slice| slice.of < of);
        let rest = &self.0[from..];
        &rest[..rest.iter().take_while(|slice| slice.of == of).count()]
    }

    /// The endpoints of the port of this name (empty for a port without one) of a Service.
    pub fn ready(&self, service: &ObjectName, port: &str, fence: Fence<'_>, problems: &mut Vec<Problem>) -> Ready {
        let mut found = Found { fence, addresses: Vec::new(), unready: 0 };
        for Slice { name, slice, .. } in self.of(service) {
            let subject = || {
                let uid = slice.metadata.uid.clone();
                Subject { kind: Kind::EndpointSlice, object: (*name).clone(), uid }
            };
            if slice.address_type != "IPv4" && slice.address_type != "IPv6" {
                let message =
                    format!("addressType {} is not served; it must be IPv4 or IPv6", shown(&slice.address_type));
                problems.push(subject().degraded(
                    Reason::NotSupported,
                    "addressType",
                    message,
                    "the slice is left out",
                ));
                continue;
            }
            for candidate in slice.ports.iter().flatten() {
                let tcp = candidate.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
                let number = candidate.port.and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0);
                if let (true, true, Some(number)) = (tcp, candidate.name.as_deref().unwrap_or_default() == port, number)
                {
                    found.take(&subject, slice, number, problems);
                }
            }
        }
        let Found { fence: _, mut addresses, unready } = found;
        addresses.sort_unstable();
        addresses.dedup();
        Ready { addresses, unready }
    }
}

/// Which addresses may not be reached through the proxy.
#[derive(Clone, Copy)]
pub struct Fence<'a> {
    /// Where the objects came from.
    pub origin: Origin,
    /// Our own ports and addresses.
    pub flags: &'a Flags,
}

impl Fence<'_> {
    /// Why an endpoint is refused, as the end of a sentence that begins with its address.
    fn refusal(self, address: SocketAddr) -> Option<&'static str> {
        let ip = address.ip();
        let own = self.flags.pod_addresses.contains(&ip);
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        match self.origin {
            _ if ip.is_unspecified() => Some("means the proxy itself"),
            _ if link_local => Some("is link-local"),
            _ if ip.is_multicast() => Some("is a multicast address"),
            Origin::Cluster if ip.is_loopback() => Some("is a loopback address, which means the proxy itself"),
            Origin::Cluster if own => Some("is the proxy's own"),
            Origin::Files if (ip.is_loopback() || own) && self.flags.own_ports.contains(&address.port()) => {
                Some("is a port of the controller or the proxy")
            }
            _ => None,
        }
    }
}

/// The endpoints found so far.
struct Found<'a> {
    fence: Fence<'a>,
    addresses: Vec<SocketAddr>,
    unready: usize,
}

/// What is left out of one slice: the first of its kind is named, the others are counted.
#[derive(Default)]
struct LeftOut(Option<(String, String)>, usize);

impl LeftOut {
    fn note(&mut self, endpoint: usize, address: usize, message: impl FnOnce() -> String) {
        if self.0.is_none() {
            self.0 = Some((format!("endpoints[{endpoint}].addresses[{address}]"), message()));
        }
        self.1 += 1;
    }

    fn told(self) -> Option<(String, String)> {
        let (field, message) = self.0?;
        Some((field, if self.1 > 1 { format!("{message} (and {} others of the slice)", self.1 - 1) } else { message }))
    }
}

impl Found<'_> {
    fn take(&mut self, subject: &dyn Fn() -> Subject, slice: &EndpointSlice, port: u16, problems: &mut Vec<Problem>) {
        let (mut refused, mut malformed) = (LeftOut::default(), LeftOut::default());
        for (number, endpoint) in slice.endpoints.iter().enumerate() {
            // Not known counts as ready.
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                self.unready += 1;
                continue;
            }
            for (at, text) in endpoint.addresses.iter().enumerate() {
                let Ok(ip) = text.parse::<IpAddr>() else {
                    malformed.note(number, at, || format!("address {} is no IP address; it must be one", shown(text)));
                    continue;
                };
                let address = SocketAddr::new(ip.to_canonical(), port);
                match self.fence.refusal(address) {
                    None => self.addresses.push(address),
                    Some(why) => refused.note(number, at, || {
                        format!("endpoint {address} {why}; it must be an address outside of the proxy")
                    }),
                }
            }
        }
        let effect = "no request is sent there";
        if let Some((field, message)) = refused.told() {
            problems.push(subject().rejected(Reason::EndpointRefused, field, message, effect));
        }
        if let Some((field, message)) = malformed.told() {
            problems.push(subject().degraded(Reason::InvalidValue, field, message, effect));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_proxys_side_of_the_fence_is_refused() {
        let flags = Flags {
            own_ports: [8080, 10254].into(),
            pod_addresses: ["10.0.0.9".parse().unwrap()].into(),
            ..Flags::default()
        };
        let refused = |origin, address: &str| {
            let address: SocketAddr = address.parse().unwrap();
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            Fence { origin, flags: &flags }.refusal(address).is_some()
        };
        for (address, from_cluster, from_files) in [
            ("10.0.0.1:8080", false, false),
            ("[2001:db8::1]:80", false, false),
            ("127.0.0.1:3000", true, false),
            ("127.9.9.9:10254", true, true),
            ("[::1]:3000", true, false),
            ("[::1]:8080", true, true),
            ("[::ffff:127.0.0.1]:8080", true, true),
            ("10.0.0.9:80", true, false),
            ("10.0.0.9:8080", true, true),
            ("0.0.0.0:80", true, true),
            ("[::]:80", true, true),
            ("[::ffff:0.0.0.0]:80", true, true),
            ("169.254.169.254:80", true, true),
            ("[fe80::1]:80", true, true),
            ("224.0.0.1:80", true, true),
            ("[ff02::1]:80", true, true),
            ("255.255.255.255:80", true, true),
        ] {
            assert_eq!(refused(Origin::Cluster, address), from_cluster, "{address} from the cluster");
            assert_eq!(refused(Origin::Files, address), from_files, "{address} from files");
        }
    }
}
