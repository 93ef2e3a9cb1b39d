//! What Envoy cannot do as it is asked for: told on the object that asks, and what is done instead.

use std::collections::BTreeSet;

use super::{Common, ciphers, expression, listener};
use crate::annotations::client_tls::ClientTls;
use crate::annotations::connections::Connections;
use crate::annotations::rate::Rate;
use crate::annotations::retries::Retries;
use crate::annotations::rewrite::Rewrite;
use crate::annotations::timeouts::Timeouts;
use crate::model::{Action, PathMatch, Route};
use crate::problem::{Problem, Reason, Subject};
use crate::render::site::Site;
use crate::value::shown;

/// Everything, each thing once for each object.
pub(super) fn all(common: &Common<'_>, sites: &[Site<'_>]) -> Vec<Problem> {
    let mut problems = BTreeSet::new();
    for route in sites.iter().flat_map(|site| &site.routes) {
        if let Some(subject) = &route.source {
            of_path(subject, route, &mut problems);
            of_transfer(common, subject, route, &mut problems);
        }
    }
    if let Some(subject) = &common.config.globals_source {
        of_globals(subject, common, &mut problems);
    }
    problems.into_iter().collect()
}

/// Whether a rewrite does the same here as it would elsewhere.
pub(super) fn rewrites(rewrite: &Rewrite, path: &PathMatch) -> bool {
    // The expression for a literal path is made of the path alone.
    !matches!(path, PathMatch::Regex(_)) || expression::foreign(&rewrite.pattern).is_none()
}

fn of_path(subject: &Subject, route: &Route, problems: &mut BTreeSet<Problem>) {
    let PathMatch::Regex(regex) = &route.path else { return };
    let Some(what) = expression::foreign(regex) else { return };
    let range = &route.policies.source_range;
    let effect = if range.deny.is_empty() && range.allow.is_empty() {
        "the path is not served; its requests belong to what matches them next".to_owned()
    } else {
        format!("whatever begins with {} answers 503", shown(expression::beginning(regex)))
    };
    let message = format!("path {} has {what}, which Envoy's regular expressions have not", shown(regex.as_str()));
    problems.insert(subject.rejected(Reason::ProxyCannot, "", message, &effect));
}

fn of_transfer(common: &Common<'_>, subject: &Subject, route: &Route, problems: &mut BTreeSet<Problem>) {
    let Action::Forward(upstream) = &route.action else { return };
    if let Some(rewrite) = route.policies.rewrite.as_ref().filter(|rewrite| !rewrites(rewrite, &route.path)) {
        let pattern = shown(rewrite.pattern.as_str());
        let message = format!("rewrite-target: {pattern} cannot be read by Envoy's regular expressions");
        problems.insert(subject.rejected(Reason::ProxyCannot, "", message, "the path answers 503"));
    }
    let mut tell = |message: String, effect: String| {
        problems.insert(subject.notice(Reason::ProxyCannot, "", message, &effect));
    };
    let Rate { kilobytes, after } = route.policies.rate;
    if kilobytes.get() != 0 && after.get() != 0 && route.policies.buffering.responses {
        tell(
            format!("limit-rate-after: Envoy cannot send the first {after} KiB of an answer faster"),
            format!("all of each answer is limited to {kilobytes} KiB in a second"),
        );
    }
    let Retries { after: _, non_idempotent: _, timeout, tries: _ } = &route.policies.retries;
    if timeout.get() != 0 {
        tell(
            format!("proxy-next-upstream-timeout: Envoy cannot end all tries together after {timeout}"),
            "tries are limited by their number alone".to_owned(),
        );
    }
    let Timeouts { connect, send, read } = &route.policies.timeouts;
    if send != read {
        let longer = send.max(read);
        tell(
            format!(
                "proxy-send-timeout is {send} and proxy-read-timeout {read}, but Envoy has one for both directions"
            ),
            format!("the longer one holds while a request is being sent: {longer}"),
        );
    }
    if let Some(longest) = common.uses.get(upstream).map(|used| used.connect).filter(|longest| longest != connect) {
        tell(
            format!(
                "proxy-connect-timeout is {connect} here and {longest} elsewhere, but Envoy has one for each Service"
            ),
            format!("the longest one holds: {longest}"),
        );
    }
}

fn of_globals(subject: &Subject, common: &Common<'_>, problems: &mut BTreeSet<Problem>) {
    let globals = &common.config.globals;
    let mut tell = |field: &str, message: String, effect: &str| {
        problems.insert(subject.degraded(Reason::ProxyCannot, format!("data[{field}]"), message, effect));
    };
    for variable in &common.log.unknown {
        tell("log-format-upstream", format!("Envoy has nothing like ${variable}"), "the log has `-` in its place");
    }
    if globals.connections.server_tokens {
        tell("server-tokens", "Envoy does not tell its version".to_owned(), "the Server header has none");
    }
    let Connections { upstream_connections, .. } = &globals.connections;
    if !matches!(upstream_connections.get(), 0) && *upstream_connections != Connections::default().upstream_connections
    {
        let message = format!("Envoy has no limit of {upstream_connections} idle connections for an upstream");
        tell(
            "upstream-keepalive-connections",
            message,
            "each is kept until it has been idle for upstream-keepalive-timeout",
        );
    }
    let ClientTls { protocols, ciphers, http2: _ } = &globals.client_tls;
    if protocols.len() > listener::span(protocols).len() {
        tell(
            "ssl-protocols",
            "Envoy cannot leave out a version between two others".to_owned(),
            "only what is newer is offered",
        );
    }
    if ciphers::known(ciphers).is_empty() {
        tell("ssl-ciphers", "Envoy has none of these ciphers".to_owned(), "its own choice is offered");
    }
}
