//! What is told about a key that no family used: not built yet, out of place, of the past, or known to nobody.

use super::FAMILIES;
use super::known::{self, Known, Legacy};
use super::known_settings;
use super::reader::Layer;
use super::spec::{Key, OnInvalid, Scope};
use crate::problem::{Reason, Severity};
use crate::value::shown;

/// What is told about a key that no family used.
pub(super) struct Leftover {
    pub reason: Reason,
    pub severity: Severity,
    pub message: String,
    pub effect: &'static str,
    /// Set where the key is meant to protect: then the routes are closed, under this name.
    pub protects: Option<&'static str>,
}

impl Leftover {
    fn new(reason: Reason, message: String) -> Self {
        Self { reason, severity: Severity::Degraded, message, effect: "it has no effect", protects: None }
    }
}

/// What is told about the entry `name: text` of this layer; `None` where it asks for nothing.
pub(super) fn explain(layer: Layer<'_>, name: &str, text: &str) -> Option<Leftover> {
    let (here, there) = match layer {
        Layer::Service { .. } | Layer::Ingress { .. } | Layer::Class => (known::ANNOTATIONS, known_settings::SETTINGS),
        Layer::ConfigMap => (known_settings::SETTINGS, known::ANNOTATIONS),
    };
    let legacy = match layer {
        Layer::Service { .. } | Layer::Ingress { .. } => known::LEGACY_ANNOTATIONS,
        Layer::Class | Layer::ConfigMap => known_settings::LEGACY_SETTINGS,
    };
    if let Some(known) = named(here, name) {
        return not_built(known, text);
    }
    if let Some(key) = claimed(name) {
        // In the ConfigMap it is out of place because nothing global goes by that name, so it protects nothing there.
        let protects = key.on_invalid == OnInvalid::Deny && layer != Layer::ConfigMap;
        return Some(out_of_place(layer, name, key.scope, protects.then_some(key.name)));
    }
    if let Some(known) = named(there, name) {
        if text.is_empty() {
            return None;
        }
        let (scope, protects) = match layer {
            Layer::ConfigMap => (Scope::Route, false),
            _ => (Scope::Global, known.protects_with(text)),
        };
        return Some(out_of_place(layer, known.name, scope, protects.then_some(known.name)));
    }
    match legacy.iter().find(|legacy| legacy.is(name)) {
        Some(legacy) => Some(of_the_past(name, legacy)),
        None => Some(unknown(layer, name)),
    }
}

fn named(list: &'static [Known], name: &str) -> Option<&'static Known> {
    list.iter().find(|known| known.name == name)
}

/// The key that a family has built under this name, whatever the place.
fn claimed(name: &str) -> Option<&'static Key> {
    let keys = FAMILIES.iter().flat_map(|family| family.spec().keys);
    keys.copied().find(|key| key.annotations().chain(key.in_config_map()).any(|n| n == name))
}

fn not_built(known: &'static Known, text: &str) -> Option<Leftover> {
    if text.is_empty() || known.asks_nothing(text) {
        return None;
    }
    let name = known.name;
    Some(match known.pointless {
        Some(why) => Leftover {
            severity: Severity::Notice,
            ..Leftover::new(Reason::NotSupported, format!("{name} is not needed: {why}"))
        },
        None if known.protects_with(text) => Leftover {
            protects: Some(name),
            ..Leftover::new(Reason::NotSupported, format!("{name} is not supported yet, and it is meant to protect"))
        },
        None => Leftover::new(Reason::NotSupported, format!("{name} is not supported yet")),
    })
}

fn out_of_place(layer: Layer<'_>, name: &str, scope: Scope, protects: Option<&'static str>) -> Leftover {
    let where_to = match (layer, scope) {
        (Layer::ConfigMap, _) => "is an annotation of Ingresses, not a key of the global ConfigMap",
        (Layer::Class, _) => "holds for the whole proxy, not for one class; it belongs into the global ConfigMap",
        (_, Scope::Global) => "holds for the whole proxy; it is a key of the global ConfigMap, not an annotation",
        (_, _) => "does not concern the way to the endpoints; it belongs on the Ingress, not on its Service",
    };
    Leftover { protects, ..Leftover::new(Reason::OutOfPlace, format!("{name} {where_to}")) }
}

fn of_the_past(name: &str, legacy: &Legacy) -> Leftover {
    // A name that matched only a beginning is anybody's text.
    let name = if legacy.name.ends_with('*') { shown(name) } else { name.to_owned() };
    Leftover::new(Reason::NotSupported, format!("{name} is of the past; {}", legacy.instead))
}

fn unknown(layer: Layer<'_>, name: &str) -> Leftover {
    let (reason, what) = match layer {
        Layer::Service { .. } | Layer::Ingress { .. } => (Reason::UnknownAnnotation, "is no annotation"),
        Layer::Class => (Reason::UnknownSetting, "is no parameter of a class"),
        Layer::ConfigMap => (Reason::UnknownSetting, "is no key of the global ConfigMap"),
    };
    let meant = nearest(layer, name).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Leftover::new(reason, format!("{} {what} that is known here{meant}", shown(name)))
}

/// The key that belongs here and is spelt most like `name`, if any is spelt much like it.
fn nearest(layer: Layer<'_>, name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let most = (name.len() / 4).clamp(1, 3);
    let built = FAMILIES.iter().flat_map(|family| family.spec().keys).flat_map(|key| layer.names(key));
    let known = match layer {
        Layer::ConfigMap => known_settings::SETTINGS,
        _ => known::ANNOTATIONS,
    };
    built
        .chain(known.iter().map(|known| known.name))
        .filter(|near| near.len().abs_diff(name.len()) <= most)
        .map(|near| (strsim::osa_distance(near, &name), near))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, near)| near)
}
