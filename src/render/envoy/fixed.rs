//! All of a configuration as one bootstrap that asks nobody: to read, and for Envoy's own test. Nothing is served by it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use prost::{Message as _, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

use super::{Common, bootstrap, cluster, hosts, listener};
use crate::render::RenderError;
use crate::render::site::Site;

/// The descriptors of Envoy's types, which know the names of their fields.
static TYPES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy-types.bin"));
    DescriptorPool::decode(bytes).unwrap_or_else(|error| unreachable!("envoy-types carries its descriptors: {error}"))
});

/// The bootstrap. File names in it are relative to `out/`.
pub(super) fn text(common: &Common<'_>, sites: &[Site<'_>], slots: &BTreeSet<String>) -> Result<String, RenderError> {
    let table = RouteConfiguration::decode(&*hosts::table(common, sites).bytes)
        .unwrap_or_else(|error| unreachable!("we wrote the table ourselves: {error}"));
    let routes = RouteSpecifier::RouteConfig(table);
    let sources = listener::Sources::Files(&routes, slots);
    let listeners: Vec<Value> = listener::all(common, &sources).iter().map(shown::<Listener>).collect();
    let clusters: Vec<Value> = cluster::fixed(common).iter().map(shown::<Cluster>).collect();
    let mut whole: Value =
        serde_json::from_str(&bootstrap::text()?).unwrap_or_else(|error| unreachable!("the template is JSON: {error}"));
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("dynamic_resources");
    }
    whole["static_resources"] = json!({ "clusters": clusters, "listeners": listeners });
    Ok(format!("{whole:#}\n"))
}

/// A message as JSON, by the names of its fields, sorted.
fn shown<T: Name>(message: &T) -> Value {
    let Some(descriptor) = TYPES.get_message_by_name(&T::full_name()) else {
        unreachable!("the descriptors are those that the types were made from")
    };
    let options = SerializeOptions::new().use_proto_field_name(true);
    DynamicMessage::decode(descriptor, &*message.encode_to_vec())
        .map_err(|error| error.to_string())
        .and_then(|message| {
            message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
        })
        .unwrap_or_else(|error| unreachable!("a message of Envoy's is JSON: {error}"))
}
