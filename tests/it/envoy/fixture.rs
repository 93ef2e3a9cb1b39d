//! Releases for Envoy, written by hand as JSON, and what Envoy's admin socket says.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use coxswain::volume::{LogLevel, Manifest, ProxyKind, Volume};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::agent::fixture::{Sidecar, Written};
use crate::support::eventually;
use crate::support::wait::check;

static TYPES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/envoy-types.bin"));
    DescriptorPool::decode(bytes.as_slice()).expect("descriptors")
});

/// A release to be written.
#[derive(Clone)]
pub struct Release {
    pub clusters: Vec<Value>,
    /// Besides the one on `Sidecar::port`.
    pub listeners: Vec<Value>,
    /// Fields of the HTTP connection manager of all listeners.
    pub manager: Value,
    pub routes: Vec<Value>,
    /// Instead of resources.
    pub bootstrap: Option<Value>,
    pub manifest: Manifest,
}

impl Release {
    /// Every path answers 200 with this text.
    pub fn saying(text: &str) -> Self {
        Self::routing(
            json!([{ "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": text } } }]),
        )
    }

    /// Every request goes to this upstream.
    pub fn to(upstream: &str) -> Self {
        let route = json!([{ "match": { "prefix": "/" }, "route": { "cluster": upstream, "timeout": "0s" } }]);
        Self::routing(route).cluster(upstream)
    }

    pub fn routing(routes: Value) -> Self {
        Self {
            clusters: vec![],
            listeners: vec![],
            manager: json!({}),
            routes: routes.as_array().expect("routes").clone(),
            bootstrap: None,
            manifest: Manifest {
                proxy: ProxyKind::Envoy,
                base: None,
                upstreams: vec![],
                slots: vec![],
                files: vec![],
                error_log_level: LogLevel::Notice,
                worker_shutdown_timeout: 240,
                workers: Some(2),
                access_log: None,
            },
        }
    }

    /// One more upstream.
    pub fn cluster(self, name: &str) -> Self {
        self.cluster_with(name, json!({}))
    }

    /// One more upstream, with these fields besides.
    pub fn cluster_with(mut self, name: &str, fields: Value) -> Self {
        let mut cluster = json!({
            "name": name,
            "type": "EDS",
            "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } },
            "connect_timeout": "5s",
        });
        cluster.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.clusters.push(cluster);
        self.manifest.upstreams.push(name.to_owned());
        self
    }

    fn listener(&self, name: &str, port: u16) -> Value {
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "rds": { "route_config_name": "hosts", "config_source": { "ads": {}, "resource_api_version": "V3" } },
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        });
        manager.as_object_mut().unwrap().extend(self.manager.as_object().unwrap().clone());
        json!({
            "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
            "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
        })
    }
}

impl Written for Release {
    fn files(&self, port: u16) -> BTreeMap<String, Vec<u8>> {
        let listeners = [vec![self.listener("http", port)], self.listeners.clone()].concat();
        let routes =
            json!({ "name": "hosts", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": self.routes }] });
        let certificates = json!({ "exact": {}, "wildcard": {}, "default": "default" });
        let files = [
            ("bootstrap.json", self.bootstrap.clone().unwrap_or_else(bootstrap).to_string().into_bytes()),
            ("certificates.json", certificates.to_string().into_bytes()),
            ("clusters.pb", resources("envoy.config.cluster.v3.Cluster", &self.clusters)),
            ("listeners.pb", resources("envoy.config.listener.v3.Listener", &listeners)),
            ("routes.pb", resources("envoy.config.route.v3.RouteConfiguration", &[routes])),
        ];
        files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect()
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// A bootstrap that says no more than where the agent serves.
pub fn bootstrap() -> Value {
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let agent = json!({ "endpoint": { "address": { "pipe": { "path": "xds.sock" } } } });
    let back_off = json!({ "retry_back_off": { "base_interval": "0.1s", "max_interval": "1s" } });
    json!({
        "node": { "id": "coxswain", "cluster": "coxswain" },
        "admin": { "address": { "pipe": { "path": "admin.sock" } } },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "agent", "retry_policy": back_off } }],
            },
            "cds_config": { "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" },
            "lds_config": { "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" },
        },
        "static_resources": { "clusters": [{
            "name": "agent",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
            "load_assignment": { "cluster_name": "agent", "endpoints": [{ "lb_endpoints": [agent] }] },
        }] },
    })
}

fn resources(type_name: &str, all: &[Value]) -> Vec<u8> {
    let descriptor = TYPES.get_message_by_name(type_name).expect("a type of Envoy");
    let type_url = format!("type.googleapis.com/{type_name}");
    let resource = |json: &Value| {
        let value =
            DynamicMessage::deserialize(descriptor.clone(), json).expect("a message of this type").encode_to_vec();
        let version = Sha256::digest(&value).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = json["name"].as_str().expect("a name").to_owned();
        let resource = Some(Any { type_url: type_url.clone(), value });
        Resource { name, version, resource, ..Resource::default() }
    };
    let mut resources: Vec<_> = all.iter().map(resource).collect();
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    DeltaDiscoveryResponse { type_url: type_url.clone(), resources, ..DeltaDiscoveryResponse::default() }
        .encode_to_vec()
}

/// What Envoy counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Updates {
    pub clusters: u64,
    pub listeners: u64,
    pub routes: u64,
}

/// What Envoy's admin socket answers.
pub async fn admin(volume: &Volume, path: &str) -> Result<String, String> {
    use http_body_util::BodyExt as _;
    let socket = volume.output().join("admin.sock");
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|err| err.to_string())?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|err| err.to_string())?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "admin").body(String::new()).unwrap();
    let answer = sender.send_request(request).await.map_err(|err| err.to_string())?;
    let body = answer.into_body().collect().await.map_err(|err| err.to_string())?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// One number of Envoy's statistics; 0 if it has none.
pub async fn stat(sidecar: &Sidecar, name: &str) -> u64 {
    let text =
        eventually("statistics", async || admin(&sidecar.volume, &format!("/stats?format=text&filter={name}")).await)
            .await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
    line.unwrap_or(0)
}

/// How often Envoy took up something.
pub async fn updates(sidecar: &Sidecar) -> Updates {
    Updates {
        clusters: stat(sidecar, "cluster_manager.cds.update_success").await,
        listeners: stat(sidecar, "listener_manager.lds.update_success").await,
        routes: stat(sidecar, "http.http.rds.hosts.update_success").await,
    }
}

/// The names of what Envoy holds, with the version of each: clusters, listeners, routes.
pub async fn held(sidecar: &Sidecar) -> BTreeMap<String, String> {
    let dump = eventually("what Envoy holds", async || admin(&sidecar.volume, "/config_dump").await).await;
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    let mut held = BTreeMap::new();
    for config in dump["configs"].as_array().expect("configs") {
        for kind in
            ["dynamic_active_clusters", "dynamic_warming_clusters", "dynamic_listeners", "dynamic_route_configs"]
        {
            for one in config[kind].as_array().into_iter().flatten() {
                // Of a listener that was refused Envoy keeps no more than the reason.
                if kind == "dynamic_listeners" && one.get("active_state").is_none() {
                    continue;
                }
                let state = if kind == "dynamic_listeners" { &one["active_state"] } else { one };
                let content = ["cluster", "listener", "route_config"].into_iter().find_map(|field| state.get(field));
                let content = content.unwrap_or(&Value::Null);
                held.insert(format!("{kind} {}", content["name"]), content.to_string());
            }
        }
    }
    held
}

/// One that serves this.
pub async fn serving(release: &Release) -> Option<(Sidecar, coxswain::volume::Digest)> {
    let mut sidecar = Sidecar::envoy().await?;
    let first = sidecar.publish(release);
    sidecar.start();
    sidecar.accepts(&first).await;
    sidecar.becomes_ready().await;
    Some((sidecar, first))
}

/// Waits until a request is answered with this status.
pub async fn answers(sidecar: &Sidecar, status: u16) {
    let client = crate::support::Client::new(sidecar.address());
    eventually(&format!("answer {status}"), async || {
        let answer = client.try_get("localhost", "/").await?;
        check(answer.status == status, || format!("{} {}", answer.status, answer.text()))
    })
    .await;
}
