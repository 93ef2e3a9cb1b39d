//! From an untyped document to a type of the API: what does not fit is named with its field, and what is left over too.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::{Path, Segment};

use super::Object;
use crate::value::shown;

/// A kind that is read from files.
pub trait Typed: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize {
    /// Whether its values may never be shown.
    const SECRET: bool = false;

    /// Fills in what the API server would have.
    fn fill_in(&mut self) {}

    /// The object as the snapshot keeps it.
    fn into_object(self) -> Object;
}

/// Where a document does not fit its kind, and a sentence about it.
pub struct Misfit {
    /// The field, as `kubectl explain` would write it.
    pub field: String,
    /// Goes on from "the document".
    pub message: String,
}

/// Reads an object, and tells which fields of the document no such object has.
pub fn read<K: Typed>(mut value: Json) -> Result<(K, Vec<String>), Misfit> {
    if K::SECRET {
        unwrap_base64(&mut value);
    }
    // k8s-openapi ignores unknown fields without a word, so what it took is compared with what was given.
    let object: K = serde_path_to_error::deserialize(&value).map_err(|error| misfit::<K>(&value, &error))?;
    let mut leftovers = Vec::new();
    if let Ok(taken) = serde_json::to_value(&object) {
        left_over(&value, &taken, &mut String::new(), &mut leftovers);
    }
    Ok((object, leftovers))
}

fn misfit<K: Typed>(value: &Json, error: &serde_path_to_error::Error<serde_json::Error>) -> Misfit {
    let field = field(error.path());
    let words = error.inner().to_string();
    let right = words.rsplit_once(", expected ").map(|(_, right)| plainly(right));
    let given = error.path().iter().try_fold(value, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    let message = match (right, given) {
        (Some(right), _) if K::SECRET => format!("does not fit: `{field}` must be {right}"),
        (None, _) if K::SECRET => format!("does not fit: `{field}` cannot be read"),
        (Some(right), Some(given)) => format!("does not fit: `{field}` is {}; it must be {right}", kind_of(given)),
        _ => format!("does not fit: `{field}`: {}", shown(&words)),
    };
    Misfit { field, message }
}

/// The document's own text where it is short, else what kind of thing it is.
fn kind_of(value: &Json) -> String {
    match value {
        Json::Object(_) => "a mapping".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        Json::Null => "empty".to_owned(),
        Json::String(text) => format!("the text {}", shown(text)),
        Json::Bool(_) => format!("{value} without quotes"),
        Json::Number(_) => format!("the number {value}"),
    }
}

/// serde's and k8s-openapi's words for what they want, for people who write YAML.
fn plainly(expected: &str) -> String {
    let plain = match expected {
        "i32" | "i64" | "u32" | "u64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a string" => "a text (in quotes, if it looks like something else)",
        "IntOrString" => "a number or a name",
        other if other.starts_with("a ") || other.starts_with("an ") => other,
        // A type of the API by its name.
        other => return format!("a mapping ({other})"),
    };
    plain.to_owned()
}

fn field(path: &Path) -> String {
    let mut out = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Map { key } => push_key(&mut out, key),
            Segment::Seq { index } => out.push_str(&format!("[{index}]")),
            Segment::Enum { .. } | Segment::Unknown => out.push_str("[?]"),
        }
    }
    out
}

/// `.key`; `[key]` for what is no word; in quotes what could do harm to a reader.
fn push_key(out: &mut String, key: &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let short = !key.is_empty() && key.len() <= 100;
    if short && key.chars().all(word) {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(key);
    } else if short && key.chars().all(|c| word(c) || matches!(c, '.' | '-' | '/')) {
        out.push_str(&format!("[{key}]"));
    } else {
        out.push_str(&format!("[{}]", shown(key)));
    }
}

fn left_over(given: &Json, taken: &Json, path: &mut String, out: &mut Vec<String>) {
    let length = path.len();
    match (given, taken) {
        (Json::Object(given), Json::Object(taken)) => {
            for (key, value) in given {
                push_key(path, key);
                match taken.get(key) {
                    Some(taken) => left_over(value, taken, path, out),
                    // `field: null` is the same as no field.
                    None if value.is_null() => {}
                    None => out.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Json::Array(given), Json::Array(taken)) => {
            for (n, (given, taken)) in given.iter().zip(taken).enumerate() {
                path.push_str(&format!("[{n}]"));
                left_over(given, taken, path, out);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// The API server takes base64 with line breaks in it; k8s-openapi does not.
fn unwrap_base64(value: &mut Json) {
    let Some(Json::Object(data)) = value.get_mut("data") else { return };
    for entry in data.values_mut() {
        if let Json::String(text) = entry {
            text.retain(|c| !matches!(c, '\n' | '\r'));
        }
    }
}
