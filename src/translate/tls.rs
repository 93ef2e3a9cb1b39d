//! Which certificate a host gets, and what is wrong with it.
//!
//! An Ingress secures the hosts of its own rules and no others. Which slot serves a host is decided here and part of the
//! release; what a slot holds is live.

use std::cell::OnceCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::IngressTLS;

use super::certificates::{Certificates, Secret, covers, names, validity};
use super::claims::distinct;
use super::ingresses::Ours;
use super::rules::Named;
use crate::model::SlotId;
use crate::problem::{Problem, Reason};
use crate::value::host::HostMatch;
use crate::value::reference::Name;
use crate::value::{Invalid, Value as _, shown};

const DEFAULT: &str = "the default certificate is served";

/// The slot that serves a host, if anybody who names it asks for TLS: the first Ingress that does decides.
pub fn slot(
    host: &HostMatch,
    group: &[Named<'_>],
    certificates: &mut Certificates<'_>,
    problems: &mut Vec<Problem>,
) -> Option<SlotId> {
    let mut winner: Option<(SlotId, &Ours<'_>)> = None;
    for Named { by, tls, .. } in distinct(group) {
        let Some((section, entry)) = tls.and_then(|section| Some((section, section.entry_for(host)?))) else {
            continue;
        };
        let slot = section.slot_for(host, entry, certificates, problems);
        match &winner {
            None => winner = Some((slot, by)),
            Some((first, _)) if *first == slot => {}
            Some((_, first)) => {
                let message =
                    format!("the certificate of host {host} comes from {}, {}", first.subject, first.precedes(by));
                let effect = "the certificate named here is not served for this host";
                let field = format!("spec.tls[{entry}].secretName");
                problems.push(by.subject.degraded(Reason::ConflictLost, field, message, effect));
            }
        }
    }
    winner.map(|(slot, _)| slot)
}

/// `spec.tls` of one Ingress.
pub struct Section<'a> {
    ingress: &'a Ours<'a>,
    /// The Secret of each entry; `None`: the default certificate.
    secrets: Vec<Option<Secret<'a>>>,
    /// Which entry lists a host, and where: the first one that does.
    listed: BTreeMap<HostMatch, (usize, usize)>,
    /// The first entry without hosts: it is meant for all hosts of the Ingress.
    unlisted: Option<usize>,
    /// Which entry's certificate is for a name, as certificates write names. Read when first needed.
    covering: OnceCell<BTreeMap<&'a str, usize>>,
}

impl<'a> Section<'a> {
    /// Reads the section of an Ingress, if it has one.
    pub fn read(ingress: &'a Ours<'a>, certificates: &Certificates<'a>, problems: &mut Vec<Problem>) -> Option<Self> {
        let entries = ingress.spec.tls.as_deref().filter(|entries| !entries.is_empty())?;
        let secrets = entries.iter().enumerate().map(|(n, entry)| secret(ingress, n, entry, certificates, problems));
        let secrets = secrets.collect();
        let mut section = Self { ingress, secrets, listed: BTreeMap::new(), unlisted: None, covering: OnceCell::new() };
        for (number, entry) in entries.iter().enumerate() {
            let hosts = entry.hosts.as_deref().unwrap_or_default();
            if hosts.is_empty() {
                section.unlisted = section.unlisted.or(Some(number));
            }
            for (at, text) in hosts.iter().enumerate() {
                section.list(number, at, text, problems);
            }
        }
        Some(section)
    }

    fn list(&mut self, entry: usize, at: usize, text: &str, problems: &mut Vec<Problem>) {
        let (field, subject) = (|| format!("spec.tls[{entry}].hosts[{at}]"), &self.ingress.subject);
        let host = match HostMatch::parse(text) {
            Ok(host) if host != HostMatch::Any => host,
            parsed => {
                let empty = || Invalid::new("is empty", HostMatch::GRAMMAR);
                let message = format!("host {} {}", shown(text), parsed.err().unwrap_or_else(empty));
                problems.push(subject.degraded(Reason::InvalidHost, field(), message, "nothing is served for it"));
                return;
            }
        };
        match self.listed.entry(host) {
            Entry::Vacant(vacant) => drop(vacant.insert((entry, at))),
            Entry::Occupied(listed) => {
                let (first, _) = *listed.get();
                let object = |entry: usize| self.secrets[entry].as_ref().map(|secret| &secret.object);
                if object(first) != object(entry) {
                    let message =
                        format!("host {} is listed in this Ingress already, at spec.tls[{first}]", listed.key());
                    problems.push(subject.degraded(Reason::ConflictLost, field(), message, "the first one counts"));
                }
            }
        }
    }

    /// A host must stand in the rules too (`own`). A wildcard may stand for the hosts of rules that it covers.
    pub fn tell_unused(&self, own: &[Named<'_>], problems: &mut Vec<Problem>) {
        if self.listed.is_empty() {
            return;
        }
        let own: BTreeSet<&HostMatch> = own.iter().map(|named| &named.host).collect();
        let mut others = self.listed.iter().filter(|(host, _)| !own.contains(host)).peekable();
        if others.peek().is_none() {
            return;
        }
        let parents: BTreeSet<HostMatch> = own.iter().filter_map(|host| wildcard_of(host)).collect();
        for (host, (entry, at)) in others.filter(|(host, _)| !parents.contains(host)) {
            let field = format!("spec.tls[{entry}].hosts[{at}]");
            let message = format!("host {host} is in none of the rules; it must be the host of a rule of this Ingress");
            let effect = "this Ingress serves no certificate for it";
            problems.push(self.ingress.subject.degraded(Reason::TlsHostUnused, field, message, effect));
        }
    }

    /// The entry that counts for a host: the one that lists it, itself or by a wildcard; else the one that is meant for
    /// all hosts; else one whose certificate happens to be for it.
    fn entry_for(&self, host: &HostMatch) -> Option<usize> {
        if let Some((entry, _)) = self.listed.get(host) {
            return Some(*entry);
        }
        let wildcard = wildcard_of(host);
        let by_wildcard = wildcard.as_ref().and_then(|wildcard| self.listed.get(wildcard));
        let listed = by_wildcard.map(|(entry, _)| *entry).or(self.unlisted);
        if listed.is_some() || *host == HostMatch::Any {
            return listed;
        }
        let covering = self.covering.get_or_init(|| covering(&self.secrets));
        let entry = |host: &HostMatch| covering.get(host.to_string().as_str()).copied();
        entry(host).into_iter().chain(wildcard.and_then(|wildcard| entry(&wildcard))).min()
    }

    /// The slot that serves a host by this entry: its Secret's, unless that is known not to be for the host.
    fn slot_for(
        &self,
        host: &HostMatch,
        entry: usize,
        certificates: &mut Certificates<'_>,
        problems: &mut Vec<Problem>,
    ) -> SlotId {
        let Some(secret) = &self.secrets[entry] else { return SlotId::default_slot() };
        let (object, certificate) = (&secret.object, secret.certificate());
        let message = match (host, certificate) {
            (HostMatch::Any, _) => {
                format!("Secret {object} cannot be for hosts that no rule names; a rule must name the host")
            }
            (host, Some(certificate)) if !covers(certificate, host) => {
                let names = names(certificate);
                format!("the certificate of Secret {object} is for {names} and not for {host}; it must be for both")
            }
            _ => return certificates.slot(secret),
        };
        let field = format!("spec.tls[{entry}].secretName");
        problems.push(self.ingress.subject.degraded(Reason::CertificateMismatch, field, message, DEFAULT));
        SlotId::default_slot()
    }
}

/// The Secret of an entry, and what is wrong with it.
fn secret<'a>(
    ingress: &Ours<'_>,
    entry: usize,
    given: &IngressTLS,
    certificates: &Certificates<'a>,
    problems: &mut Vec<Problem>,
) -> Option<Secret<'a>> {
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
    let secret = certificates.secret(object);
    let object = &secret.object;
    let told = match secret.found.map(|found| &found.certificate) {
        None => {
            let message = format!("Secret {object} does not exist; it must hold a certificate and its key");
            Some((Reason::SecretNotFound, message, DEFAULT))
        }
        Some(Err(why)) => {
            let message = format!("Secret {object} {why}; it must hold a certificate and its key");
            let effect = "the last good certificate that it held is served, or else the default one";
            Some((Reason::InvalidCertificate, message, effect))
        }
        Some(Ok(certificate)) => validity(certificate, certificates.now()).map(|wrong| {
            let message = format!("the certificate of Secret {object} {wrong}");
            (Reason::CertificateExpired, message, "it is served nevertheless; clients will refuse it")
        }),
    };
    problems.extend(told.map(|(reason, message, effect)| ingress.subject.degraded(reason, field(), message, effect)));
    Some(secret)
}

/// The wildcard that covers an exact host.
fn wildcard_of(host: &HostMatch) -> Option<HostMatch> {
    match host {
        HostMatch::Exact(name) => name.parent().map(HostMatch::Wildcard),
        HostMatch::Wildcard(_) | HostMatch::Any => None,
    }
}

/// For which names there is a certificate, with the first entry that has it.
fn covering<'a>(secrets: &[Option<Secret<'a>>]) -> BTreeMap<&'a str, usize> {
    let mut names = BTreeMap::new();
    for (number, secret) in secrets.iter().enumerate() {
        let certificate = secret.as_ref().and_then(Secret::certificate);
        for name in certificate.iter().flat_map(|certificate| &certificate.names) {
            names.entry(name.as_str()).or_insert(number);
        }
    }
    names
}

#[cfg(test)]
mod tests;
