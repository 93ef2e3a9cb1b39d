//! What Envoy itself says of a configuration: its own test of the one bootstrap that asks nobody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use coxswain::model::ProxyConfig;
use coxswain::render::standalone;
use coxswain::volume::Volume;
use serde_json::Value;

use super::certificates;

/// Has Envoy test a configuration. Every slot has a certificate of nobody's.
pub fn tested(envoy: &Path, config: &ProxyConfig) -> Result<(), String> {
    let text = standalone(config).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().expect("a folder");
    let volume = Volume::new(folder.path());
    for folder in [volume.output(), volume.tls()] {
        fs::create_dir_all(folder).expect("a folder of the volume");
    }
    let pair = certificates::Authority::new().issue(&["nobody.example.com"]);
    for slot in slots(&text) {
        fs::write(volume.tls_slot(&slot), format!("{}{}", pair.certificate, pair.key)).expect("a certificate");
    }
    fs::write(volume.output().join("standalone.json"), text).expect("the bootstrap");
    let mut command = Command::new(envoy);
    command.args(["--mode", "validate", "-l", "error", "-c", "standalone.json"]).current_dir(volume.output());
    let output = command.output().expect("Envoy starts");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The slots whose files a bootstrap names.
fn slots(text: &str) -> BTreeSet<String> {
    let named = text.split("../in/live/tls/").skip(1).filter_map(|rest| rest.split_once(".pem"));
    named.map(|(slot, _)| slot.to_owned()).collect()
}

/// What a bootstrap says: the clusters, the virtual hosts of the table, and the rest without them.
pub fn parts(config: &ProxyConfig) -> (Value, Value, Value) {
    let text = standalone(config).unwrap_or_else(|error| panic!("{error}"));
    let mut all: Value = serde_json::from_str(&text).expect("JSON");
    let clusters = all["static_resources"]["clusters"].take();
    let mut hosts = Value::Null;
    for listener in all["static_resources"]["listeners"].as_array_mut().expect("listeners") {
        let chains = listener["filter_chains"].take();
        let mut chains: Vec<Value> = chains.as_array().cloned().unwrap_or_default();
        chains.extend(listener.get_mut("default_filter_chain").map(Value::take));
        for chain in &mut chains {
            let manager = &mut chain["filters"][0]["typed_config"];
            hosts = manager["route_config"]["virtual_hosts"].take();
            for filters in filters(manager) {
                for filter in filters.as_array_mut().into_iter().flatten() {
                    // The script is a file of its own.
                    if let Some(code) = filter["typed_config"].get_mut("default_source_code") {
                        *code = Value::from("edge.lua");
                    }
                }
            }
        }
        listener["chains"] = Value::from(chains);
    }
    (clusters, hosts, all)
}

fn filters(manager: &mut Value) -> Vec<&mut Value> {
    let mut all = Vec::new();
    for (name, value) in manager.as_object_mut().expect("a filter") {
        match name.as_str() {
            "http_filters" => all.push(value),
            "upgrade_configs" => {
                all.extend(value.as_array_mut().into_iter().flatten().map(|upgrade| &mut upgrade["filters"]));
            }
            _ => {}
        }
    }
    all
}
