//! ConfigMaps as backends: their keys as files.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use k8s_openapi::api::core::v1::ConfigMap;
use sha2::{Digest as _, Sha256};

use crate::model::{StaticFile, StaticFiles};
use crate::problem::{Kind, Problem, Reason, Subject};
use crate::snapshot::Snapshot;
use crate::value::reference::ObjectName;
use crate::value::shown;

/// The contents of ConfigMaps, each read once.
pub struct StaticContents<'a> {
    config_maps: &'a BTreeMap<ObjectName, Arc<ConfigMap>>,
    known: BTreeMap<ObjectName, StaticFiles>,
}

/// What a ConfigMap holds.
pub enum Content {
    /// It does not exist.
    Missing,
    /// These files.
    Files(StaticFiles),
}

impl<'a> StaticContents<'a> {
    /// Nothing is read yet.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { config_maps: &snapshot.config_maps, known: BTreeMap::new() }
    }

    /// What a ConfigMap holds.
    pub fn of(&mut self, object: &ObjectName, problems: &mut Vec<Problem>) -> Content {
        let Some(map) = self.config_maps.get(object) else { return Content::Missing };
        let files = self.known.entry(object.clone()).or_insert_with(|| files(object, map, problems));
        Content::Files(files.clone())
    }
}

fn files(object: &ObjectName, map: &ConfigMap, problems: &mut Vec<Problem>) -> StaticFiles {
    let texts = map.data.iter().flatten().map(|(key, text)| ("data", key, text.as_bytes()));
    let binaries = map.binary_data.iter().flatten().map(|(key, bytes)| ("binaryData", key, bytes.0.as_slice()));
    let mut files = BTreeMap::new();
    for (field, key, content) in texts.chain(binaries) {
        if is_file_name(key) {
            files.entry(key.clone()).or_insert_with(|| file(key, field == "data", content));
        } else {
            let subject = Subject { kind: Kind::ConfigMap, object: object.clone(), uid: map.metadata.uid.clone() };
            let message = format!(
                "key {} cannot be the name of a file; it must be of letters, digits, `-`, `_` and `.`, and not begin with \
                 `..`",
                shown(key)
            );
            problems.push(subject.rejected(Reason::InvalidValue, field, message, "the file is not served"));
        }
    }
    StaticFiles { object: object.clone(), files }
}

/// What the API takes as a key of a ConfigMap; files may say anything.
fn is_file_name(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key != "."
        && !key.starts_with("..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn file(key: &str, text: bool, content: &[u8]) -> StaticFile {
    let kind = mime_guess::from_path(key).first_raw().unwrap_or("application/octet-stream");
    // `data` is UTF-8 by definition; without a word about it, browsers guess.
    let charset = if text && kind.starts_with("text/") { "; charset=utf-8" } else { "" };
    let sha256 = HEXLOWER.encode(&Sha256::digest(content));
    StaticFile { sha256, content_type: format!("{kind}{charset}"), content: content.into() }
}

#[cfg(test)]
mod tests {
    use crate::model::Action;
    use crate::translate::testing::Case;

    #[test]
    fn keys_are_files_with_a_type_and_a_digest() {
        let case = Case::of(
            "
            {kind: ConfigMap, metadata: {name: site}, data: {index.html: '<h1>', LICENSE: x, a b: x, ..data: x},
             binaryData: {pixel.png: iVBORw0KGgo=}}
            ---
            {kind: Ingress, metadata: {name: a}, spec: {rules: [{host: h.com, http: {paths: [
              {path: /site, pathType: Prefix, backend: {resource: {kind: ConfigMap, name: site}}}]}}]}}
            ",
        );
        case.shows(
            r#"
            h.com
              ^ /site -> files shop/site
              ^ / -> 404
            *
              ^ / -> 404
            ! rejected InvalidValue data ConfigMap shop/site: key "..data" cannot be the name of a file; it must be of letters, digits, `-`, `_` and `.`, and not begin with `..`; the file is not served
            ! rejected InvalidValue data ConfigMap shop/site: key "a b" cannot be the name of a file; it must be of letters, digits, `-`, `_` and `.`, and not begin with `..`; the file is not served
            "#,
        );
        let translation = case.translated();
        let Action::Files(files) = &translation.config.hosts[0].routes[0].action else { panic!("no files") };
        let kinds: Vec<_> = files.files.iter().map(|(key, file)| (key.as_str(), file.content_type.as_str())).collect();
        assert_eq!(
            kinds,
            [
                ("LICENSE", "application/octet-stream"),
                ("index.html", "text/html; charset=utf-8"),
                ("pixel.png", "image/png")
            ]
        );
        let digest = "0f3b6ce8a3caa52039b1d79d3bdc5de01eff6433d28cb5f137f8e67b9a57aa75";
        assert_eq!(files.files["index.html"].sha256, digest, "what sha256sum says of the four bytes");
    }

    #[test]
    fn a_regular_expression_cannot_tell_which_file_is_meant() {
        let case = Case::of(
            r#"
            {kind: ConfigMap, metadata: {name: site}, data: {index.html: x}}
            ---
            {kind: Ingress, metadata: {name: a, annotations: {nginx.ingress.kubernetes.io/use-regex: "true"}},
             spec: {rules: [{host: h.com, http: {paths: [
              {path: "/s(.*)", pathType: ImplementationSpecific, backend: {resource: {kind: ConfigMap, name: site}}},
              {path: /x, pathType: Prefix, backend: {resource: {kind: ConfigMap, name: site}}}]}}]}}
            "#,
        );
        case.shows(
            r#"
            h.com
              ~ /s(.*) -> 503
              ^ /x -> files shop/site
              ^ / -> 404
            *
              ^ / -> 404
            ! rejected InvalidBackend spec.rules[0].http.paths[0].backend.resource Ingress shop/a: a ConfigMap is served by what follows the path, which a regular expression does not tell; the path must be Exact or Prefix; requests for it are answered with 503
            "#,
        );
    }
}
