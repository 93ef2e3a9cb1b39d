//! The kinds of resources that Envoy asks for, and what each is called on the wire.

/// A kind of resource.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// An upstream, without its endpoints (CDS).
    Cluster,
    /// The endpoints of one upstream (EDS).
    Endpoints,
    /// A port (LDS).
    Listener,
    /// Which requests go where (RDS).
    Routes,
    /// Chain and key for one server name (SDS).
    Secret,
}

impl Kind {
    /// All of them, in the order in which what is new must come: a route leads to a cluster that has its endpoints.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes, Self::Secret];

    /// The kind that the wire calls so.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// What the wire calls it.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// Whether Envoy takes whatever there is of it, instead of asking for each by name.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether it comes from the release, and not from what changes without one.
    pub fn is_of_release(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::Routes)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use envoy_types::pb::envoy::config::listener::v3::Listener;
    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
    use prost::Name;

    use super::*;

    #[test]
    fn every_kind_is_called_as_its_type_is() {
        let urls = [
            Cluster::type_url(),
            ClusterLoadAssignment::type_url(),
            Listener::type_url(),
            RouteConfiguration::type_url(),
            Secret::type_url(),
        ];
        assert_eq!(Kind::ALL.map(|kind| kind.type_url().to_owned()), urls);
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.type_url()), Some(kind));
        }
    }
}
