//! Brings Envoy's descriptors along: `render` prints resources as JSON by them.
//!
//! envoy-types ships the descriptor set its Rust was generated from, but exports only the Rust.

use std::path::PathBuf;
use std::{env, fs};

use cargo_metadata::{CargoOpt, MetadataCommand};

fn main() {
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    let metadata = MetadataCommand::new()
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo knows the packages of this build");
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "envoy-types");
    let package = package.expect("Cargo.toml names envoy-types");
    let descriptors = package.manifest_path.with_file_name("src").join("generated/types.bin");
    let here = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("envoy-types.bin");
    fs::copy(&descriptors, &here).expect("envoy-types carries src/generated/types.bin");
}
