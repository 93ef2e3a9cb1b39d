//! Which certificate a host gets, and what is wrong with it.
//!
//! An Ingress secures the hosts of its own rules and no others. Which slot serves a host is decided here and part of the
//! release; what a slot holds is live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressTLS;

use super::certificates::{Certificates, covers, names, validity};
use super::hosts::{Hosts, Tls};
use super::ingresses::Ours;
use crate::model::SlotId;
use crate::problem::{Problem, Reason};
use crate::snapshot::TlsSecret;
use crate::value::host::HostMatch;
use crate::value::reference::{Name, ObjectName};
use crate::value::{Value as _, shown};

const DEFAULT: &str = "the default certificate is served";

/// Gives the hosts of an Ingress (`own`) the certificates of its `spec.tls`.
pub fn secure<'a>(
    ingress: &'a Ours<'a>,
    own: &BTreeSet<HostMatch>,
    certificates: &mut Certificates<'a>,
    hosts: &mut Hosts<'a>,
    problems: &mut Vec<Problem>,
) {
    let entries = ingress.spec.tls.as_deref().unwrap_or_default();
    if entries.is_empty() {
        return;
    }
    let mut section = Section::read(ingress, entries, certificates, problems);
    section.tell_unused(own, problems);
    for host in own {
        let Some(entry) = section.entry_for(host, certificates) else { continue };
        let slot = section.slot_for(host, entry, certificates, problems);
        let named = hosts.name(host, ingress);
        match &named.tls {
            None => named.tls = Some(Tls { slot, by: ingress }),
            Some(winner) if winner.slot == slot => {}
            Some(Tls { by, .. }) => {
                let message =
                    format!("the certificate of host {host} comes from {}, {}", by.subject, by.precedes(ingress));
                let effect = "the certificate named here is not served for this host";
                let field = format!("spec.tls[{entry}].secretName");
                problems.push(ingress.subject.degraded(Reason::ConflictLost, field, message, effect));
            }
        }
    }
}

/// `spec.tls` of one Ingress.
struct Section<'a> {
    ingress: &'a Ours<'a>,
    /// The Secret of each entry; `None`: the default certificate.
    secrets: Vec<Option<ObjectName>>,
    /// Which entry lists a host: the first one that does.
    listed: BTreeMap<HostMatch, usize>,
    /// Where each host is listed first.
    places: BTreeMap<HostMatch, usize>,
    /// The first entry without hosts: it is meant for all hosts of the Ingress.
    unlisted: Option<usize>,
    /// Which entry's certificate is for a name, as certificates write names. Read when first needed.
    covering: Option<BTreeMap<String, usize>>,
}

impl<'a> Section<'a> {
    fn read(
        ingress: &'a Ours<'a>,
        entries: &[IngressTLS],
        certificates: &Certificates<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let (mut listed, mut places, mut unlisted) = (BTreeMap::new(), BTreeMap::new(), None);
        let mut secrets = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            secrets.push(secret(ingress, number, entry, certificates, problems));
            let hosts = entry.hosts.as_deref().unwrap_or_default();
            if hosts.is_empty() {
                unlisted = unlisted.or(Some(number));
            }
            for (at, text) in hosts.iter().enumerate() {
                match HostMatch::parse(text) {
                    Ok(host) if host != HostMatch::Any => match listed.get(&host) {
                        None => {
                            places.insert(host.clone(), at);
                            listed.insert(host, number);
                        }
                        Some(&first) if secrets[first] == secrets[number] => {}
                        Some(first) => {
                            let field = format!("spec.tls[{number}].hosts[{at}]");
                            let message =
                                format!("host {host} is listed in this Ingress already, at spec.tls[{first}]");
                            let effect = "the first one counts";
                            problems.push(ingress.subject.degraded(Reason::ConflictLost, field, message, effect));
                        }
                    },
                    parsed => {
                        let invalid = parsed.err().map_or_else(
                            || format!("is empty; it must be {}", HostMatch::GRAMMAR),
                            |invalid| invalid.to_string(),
                        );
                        let field = format!("spec.tls[{number}].hosts[{at}]");
                        let message = format!("host {} {invalid}", shown(text));
                        let effect = "nothing is served for it";
                        problems.push(ingress.subject.degraded(Reason::InvalidHost, field, message, effect));
                    }
                }
            }
        }
        Self { ingress, secrets, listed, places, unlisted, covering: None }
    }

    /// A host must stand in the rules too. A wildcard may stand for the hosts of rules that it covers.
    fn tell_unused(&self, own: &BTreeSet<HostMatch>, problems: &mut Vec<Problem>) {
        let parents: BTreeSet<HostMatch> = own.iter().filter_map(wildcard_of).collect();
        for (host, entry) in self.listed.iter().filter(|(host, _)| !own.contains(host) && !parents.contains(host)) {
            let field = format!("spec.tls[{entry}].hosts[{}]", self.places.get(host).copied().unwrap_or_default());
            let message = format!("host {host} is in none of the rules; it must be the host of a rule of this Ingress");
            let effect = "this Ingress serves no certificate for it";
            problems.push(self.ingress.subject.degraded(Reason::TlsHostUnused, field, message, effect));
        }
    }

    /// The entry that counts for a host: the one that lists it, itself or by a wildcard; else the one that is meant for
    /// all hosts; else one whose certificate happens to be for it.
    fn entry_for(&mut self, host: &HostMatch, certificates: &Certificates<'_>) -> Option<usize> {
        let wildcard = wildcard_of(host);
        let listed = self.listed.get(host).or_else(|| self.listed.get(wildcard.as_ref()?)).copied();
        if listed.or(self.unlisted).is_some() || *host == HostMatch::Any {
            return listed.or(self.unlisted);
        }
        let covering = self.covering.get_or_insert_with(|| covering(&self.secrets, certificates.secrets));
        let exactly = covering.get(&host.to_string());
        let by_wildcard = wildcard.and_then(|wildcard| covering.get(&wildcard.to_string()));
        exactly.into_iter().chain(by_wildcard).min().copied()
    }

    /// The slot that serves a host by this entry: its Secret's, unless that is known not to be for the host.
    fn slot_for(
        &self,
        host: &HostMatch,
        entry: usize,
        certificates: &mut Certificates<'_>,
        problems: &mut Vec<Problem>,
    ) -> SlotId {
        let Some(object) = &self.secrets[entry] else { return SlotId::default_slot() };
        let certificate = certificates.secrets.get(object).and_then(|secret| secret.certificate.as_ref().ok());
        if certificate.is_none_or(|certificate| covers(certificate, host)) && *host != HostMatch::Any {
            return certificates.slot(object);
        }
        let names = certificate.map_or_else(String::new, |certificate| names(certificate));
        let message = match host {
            HostMatch::Any => {
                format!("Secret {object} cannot be for hosts that no rule names; a rule must name the host")
            }
            host => {
                format!("the certificate of Secret {object} is for {names} and not for {host}; it must be for both")
            }
        };
        let field = format!("spec.tls[{entry}].secretName");
        problems.push(self.ingress.subject.degraded(Reason::CertificateMismatch, field, message, DEFAULT));
        SlotId::default_slot()
    }
}

/// The Secret of an entry, and what is wrong with it.
fn secret(
    ingress: &Ours<'_>,
    entry: usize,
    given: &IngressTLS,
    certificates: &Certificates<'_>,
    problems: &mut Vec<Problem>,
) -> Option<ObjectName> {
    let text = given.secret_name.as_deref().filter(|name| !name.is_empty())?;
    let field = || format!("spec.tls[{entry}].secretName");
    let object = match Name::parse(text) {
        Ok(name) => ingress.subject.object.sibling(name),
        Err(invalid) => {
            let message = format!("Secret {} {invalid}", shown(text));
            problems.push(ingress.subject.degraded(Reason::InvalidReference, field(), message, DEFAULT));
            return None;
        }
    };
    let found = certificates.secrets.get(&object);
    let told = match found.map(|secret| &secret.certificate) {
        None => {
            let message = format!("Secret {object} does not exist; it must hold a certificate and its key");
            Some((Reason::SecretNotFound, message, DEFAULT))
        }
        Some(Err(why)) => {
            let message = format!("Secret {object} {why}; it must hold a certificate and its key");
            let effect = "the last good certificate that it held is served, or else the default one";
            Some((Reason::InvalidCertificate, message, effect))
        }
        Some(Ok(certificate)) => validity(certificate, certificates.now).map(|wrong| {
            let message = format!("the certificate of Secret {object} {wrong}");
            (Reason::CertificateExpired, message, "it is served nevertheless; clients will refuse it")
        }),
    };
    problems.extend(told.map(|(reason, message, effect)| ingress.subject.degraded(reason, field(), message, effect)));
    Some(object)
}

/// The wildcard that covers an exact host.
fn wildcard_of(host: &HostMatch) -> Option<HostMatch> {
    match host {
        HostMatch::Exact(name) => name.parent().map(HostMatch::Wildcard),
        HostMatch::Wildcard(_) | HostMatch::Any => None,
    }
}

/// For which names there is a certificate, with the first entry that has it.
fn covering(entries: &[Option<ObjectName>], secrets: &BTreeMap<ObjectName, Arc<TlsSecret>>) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for (number, object) in entries.iter().enumerate() {
        let secret = object.as_ref().and_then(|object| secrets.get(object));
        let certificate = secret.and_then(|secret| secret.certificate.as_ref().ok());
        for name in certificate.iter().flat_map(|certificate| &certificate.names) {
            names.entry(name.clone()).or_insert(number);
        }
    }
    names
}

#[cfg(test)]
mod tests;
