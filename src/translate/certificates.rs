//! The certificates of Secrets, the slots that serve them, and what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::model::{Certificate, Slot, SlotId};
use crate::problem::{Kind, Problem, Reason, Subject};
use crate::settings::Flags;
use crate::snapshot::{Snapshot, TlsSecret};
use crate::value::host::HostMatch;
use crate::value::reference::ObjectName;
use crate::value::shown;

/// The certificates, and the slots that are used so far.
pub struct Certificates<'a> {
    secrets: &'a BTreeMap<ObjectName, Arc<TlsSecret>>,
    now: i64,
    slots: BTreeMap<SlotId, Slot>,
}

/// A Secret by its name, whether or not it exists.
pub struct Secret<'a> {
    /// Its name.
    pub object: ObjectName,
    /// What it holds.
    pub found: Option<&'a TlsSecret>,
}

impl<'a> Secret<'a> {
    /// Its certificate, if it is usable.
    pub fn certificate(&self) -> Option<&'a Arc<Certificate>> {
        self.found.and_then(|found| found.certificate.as_ref().ok())
    }
}

impl<'a> Certificates<'a> {
    /// The default slot alone. `now` is in seconds since 1970.
    pub fn new(snapshot: &'a Snapshot, flags: &Flags, now: i64, problems: &mut Vec<Problem>) -> Self {
        let slot = default_slot(snapshot, flags, now, problems);
        let slots = BTreeMap::from([(SlotId::default_slot(), slot)]);
        Self { secrets: &snapshot.secrets, now, slots }
    }

    /// The time, in seconds since 1970.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Looks a Secret up.
    pub fn secret(&self, object: ObjectName) -> Secret<'a> {
        let found = self.secrets.get(&object).map(|secret| &**secret);
        Secret { object, found }
    }

    /// The slot of a Secret, which is used from now on.
    pub fn slot(&mut self, secret: &Secret<'_>) -> SlotId {
        let id = SlotId::of(&secret.object);
        self.slots.entry(id.clone()).or_insert_with(|| Slot {
            secret: Some(secret.object.clone()),
            certificate: secret.certificate().map(Arc::clone),
            exists: secret.found.is_some(),
            fallback: None,
        });
        id
    }

    /// All slots that are used.
    pub fn into_slots(self) -> BTreeMap<SlotId, Slot> {
        self.slots
    }
}

fn default_slot(snapshot: &Snapshot, flags: &Flags, now: i64, problems: &mut Vec<Problem>) -> Slot {
    let generated = snapshot.generated_certificate.clone();
    let Some(object) = &flags.default_ssl_certificate else {
        return Slot { secret: None, certificate: generated, exists: false, fallback: None };
    };
    let found = snapshot.secrets.get(object);
    let uid = found.and_then(|secret| secret.uid.clone());
    let subject = Subject { kind: Kind::Secret, object: object.clone(), uid };
    let told = match found.map(|secret| &secret.certificate) {
        Some(Ok(certificate)) => validity(certificate, now).map(|wrong| {
            let message = format!("the default certificate (`--default-ssl-certificate`) {wrong}");
            (Reason::CertificateExpired, message, "it is served nevertheless; clients will refuse it")
        }),
        Some(Err(why)) => {
            let message = format!("{why}; as `--default-ssl-certificate` it must hold a certificate and its key");
            let effect = "the last good certificate that it held is served, or else a generated one";
            Some((Reason::InvalidCertificate, message, effect))
        }
        None => {
            let message = "does not exist; as `--default-ssl-certificate` it must hold a certificate and its key";
            Some((Reason::SecretNotFound, message.to_owned(), "a generated certificate is served"))
        }
    };
    problems.extend(told.map(|(reason, message, effect)| subject.degraded(reason, "", message, effect)));
    let certificate = found.and_then(|secret| secret.certificate.as_ref().ok()).map(Arc::clone);
    Slot { secret: Some(object.clone()), certificate, exists: found.is_some(), fallback: generated }
}

/// What is wrong with the time of a certificate, as the end of a sentence that begins with it.
pub fn validity(certificate: &Certificate, now: i64) -> Option<String> {
    let date = |second| Timestamp::from_second(second).map_or_else(|_| format!("second {second}"), |t| t.to_string());
    if now > certificate.not_after {
        Some(format!("has expired on {}; it must be renewed", date(certificate.not_after)))
    } else if now < certificate.not_before {
        Some(format!("is not valid before {}; it must be valid now", date(certificate.not_before)))
    } else {
        None
    }
}

/// Whether a certificate is for every name of a host.
pub fn covers(certificate: &Certificate, host: &HostMatch) -> bool {
    match host {
        HostMatch::Exact(name) => certificate.covers(name),
        HostMatch::Wildcard(parent) => certificate.covers_wildcard(parent),
        HostMatch::Any => false,
    }
}

/// The names of a certificate, as people are shown them.
pub fn names(certificate: &Certificate) -> String {
    const MOST: usize = 5;
    let shown: Vec<_> = certificate.names.iter().take(MOST).map(|name| shown(name)).collect();
    match (shown.is_empty(), certificate.names.len().saturating_sub(MOST)) {
        (true, _) => "no host".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}
