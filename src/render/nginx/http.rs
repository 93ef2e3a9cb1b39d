//! What holds for every host: processes, TLS, forwarded headers, the way to upstreams, logs.

use std::fmt;

use askama::Template;
use sha2::{Digest as _, Sha256};

use super::Common;
use super::log::Log;
use super::server::wildcard;
use super::transfer::{Directive, Module, Transfer};
use crate::annotations::Globals;
use crate::annotations::client_tls::ClientTls;
use crate::annotations::connections::Connections;
use crate::annotations::forwarded::{Forwarded, Trust};
use crate::annotations::process::Process;
use crate::annotations::tls_redirect::TlsRedirect;
use crate::model::{Listeners, SlotId};
use crate::render::RenderError;
use crate::render::escape::{Literal, filters};
use crate::render::page::Page;
use crate::render::site::Site;
use crate::value::cidr::Cidr;
use crate::value::host::{HostMatch, Hostname};
use crate::value::number::Count;
use crate::value::path::RulePath;

/// How long, in seconds, an old worker keeps an idle connection after a reload, so that a request already under way on
/// it is not lost. Must exceed a client's round trip.
const KEEPALIVE_MIN: u32 = 10;

/// The shared cache of TLS sessions, in MiB: 4000 sessions each.
const SESSION_CACHE: u32 = 10;

/// Whose certificate is served: an entry of the map from the asked name to a slot.
enum TlsEntry<'a> {
    Exact(MapKey<'a>, &'a SlotId),
    Regex(String, &'a SlotId),
}

/// A name as the key of a map: nginx has words of its own there, such as `default`, unless a `\` comes before.
struct MapKey<'a>(&'a Hostname);

impl fmt::Display for MapKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.parent().is_none() { "\\" } else { "" })?;
        f.write_str(self.0.as_str())
    }
}

/// A proxy in front.
struct TrustView<'a> {
    networks: &'a [Cidr],
    /// Everybody is believed, over IPv6 too, where `0.0.0.0/0` says so.
    everybody: bool,
    header: &'a str,
    append: bool,
}

#[derive(Template)]
#[template(path = "nginx/http.conf")]
struct View<'a> {
    workers: Option<Count>,
    listeners: &'a Listeners,
    connections: &'a Connections,
    keepalive_min: u32,
    server_names: usize,
    map_entries: usize,
    trust: Option<TrustView<'a>>,
    /// The variable with the addresses that the request brought.
    forwarded_for: String,
    /// Whether a request without an X-Request-ID gets one.
    request_id: bool,
    exempt: &'a [RulePath],
    /// The value of Strict-Transport-Security.
    hsts: Option<String>,
    client_directives: Vec<Directive>,
    modules: [(Module, Vec<Directive>); 2],
    log: &'a Log<'a>,
    client: &'a ClientTls,
    session_cache: String,
    session_cache_size: u32,
    certificates: usize,
    tls: Vec<TlsEntry<'a>>,
}

/// Writes everything before the first upstream, and leaves `http` open.
pub(super) fn write<'a>(page: &mut Page, common: &Common<'a>, sites: &[Site<'a>]) -> Result<(), RenderError> {
    let config = common.config;
    let Globals { client_tls, connections, forwarded, hsts, logging: _, process, tls_redirect } = &config.globals;
    let Process { workers, shutdown_timeout: _ } = process;
    let Forwarded { trust, request_id } = forwarded;
    let TlsRedirect { code: _, exempt } = tls_redirect;
    let transfer = Transfer::baseline(&common.baseline);
    let view = View {
        workers: *workers,
        listeners: &config.listeners,
        connections,
        keepalive_min: KEEPALIVE_MIN.min(connections.keep_alive.get()),
        // Of all hosts, so that a part is tested with the sizes of the whole.
        server_names: hash_size(config.hosts.len()),
        map_entries: hash_size(config.hosts.len()),
        trust: trust.as_ref().map(trust_view),
        forwarded_for: trust.as_ref().map_or("x_forwarded_for".to_owned(), |trust| trust.header.variable()),
        request_id: *request_id,
        exempt,
        hsts: hsts.enabled.then(|| hsts.value()),
        client_directives: transfer.client(),
        modules: Module::ALL.map(|module| (module, transfer.upstream(module))),
        log: &common.log,
        client: client_tls,
        session_cache: session_cache(client_tls),
        session_cache_size: SESSION_CACHE,
        // Certificate and key take an entry each.
        certificates: 2 * config.slots.len() + 100,
        tls: sites.iter().filter_map(tls_entry).collect(),
    };
    page.part(None, &view)
}

fn trust_view(trust: &Trust) -> TrustView<'_> {
    let Trust { header, from, append } = trust;
    TrustView {
        networks: &from.0,
        everybody: from.0.iter().any(|cidr| cidr.network().prefix_len() == 0),
        header: header.as_str(),
        append: *append,
    }
}

fn tls_entry<'a>(site: &Site<'a>) -> Option<TlsEntry<'a>> {
    let slot = site.host.tls.as_ref()?;
    match &site.host.host {
        HostMatch::Exact(name) => Some(TlsEntry::Exact(MapKey(name), slot)),
        HostMatch::Wildcard(parent) => Some(TlsEntry::Regex(wildcard(parent), slot)),
        // The certificate of all other names is the default one.
        HostMatch::Any => None,
    }
}

/// Room for twice the names, so that nginx finds a good table at once.
fn hash_size(names: usize) -> usize {
    (2 * names).next_power_of_two().max(1024)
}

/// The name of the session cache. Its settings are part of it: sessions that were made under weaker ones are not taken
/// up again, and nginx refuses to give a zone another size.
fn session_cache(client: &ClientTls) -> String {
    let ClientTls { protocols, ciphers, http2: _ } = client;
    let text = format!("{protocols:?} {ciphers} {SESSION_CACHE}");
    let hash = Sha256::digest(text.as_bytes());
    let digits: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("tls_{digits}")
}

/// Matches what begins with a path.
struct BeginsWith<'a>(&'a RulePath);

impl fmt::Display for BeginsWith<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~^{}", Literal(self.0.as_str()))
    }
}
