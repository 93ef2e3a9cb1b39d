//! What `run` prints when it serves for the first time: what is served, and where.

use std::fmt::Write as _;

use super::flags::Common;
use crate::model::{Action, PathMatch, ProxyConfig, Route};
use crate::value::host::HostMatch;

/// More lines than this are read by nobody.
const MOST: usize = 40;

/// The summary of a configuration that is in force.
pub fn of(config: &ProxyConfig, common: &Common) -> String {
    let mut out = String::new();
    let files: Vec<String> = common.files.iter().map(|path| path.display().to_string()).collect();
    let ports = (common.proxy.http_port, common.proxy.https_port, common.proxy.ready_port);
    // Writing into a String cannot fail.
    let _ = writeln!(out, "\ncoxswain serves {}", files.join(", "));
    let _ = writeln!(out, "  http   http://localhost:{}", ports.0);
    let _ = writeln!(out, "  https  https://localhost:{}", ports.1);
    let _ = writeln!(out, "  ready  http://localhost:{}/readyz\n", ports.2);
    let mut rows = vec![["HOST", "PATH", "BACKEND", "FROM"].map(str::to_owned)];
    for host in &config.hosts {
        let name = match &host.host {
            HostMatch::Any => "(any other)".to_owned(),
            host => host.to_string(),
        };
        let routes = host.routes.iter().filter(|route| route.source.is_some());
        rows.extend(routes.map(|route| [name.clone(), path(&route.path), backend(config, route), source(route)]));
    }
    let more = rows.len().saturating_sub(MOST + 1);
    rows.truncate(MOST + 1);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [host, path, backend, from] in &rows {
        let [w0, w1, w2] = widths;
        let _ = writeln!(out, "  {host:w0$}  {path:w1$}  {backend:w2$}  {from}");
    }
    if rows.len() == 1 {
        let _ = writeln!(out, "  nothing: no Ingress there is ours; `coxswain check` says why");
    }
    if more > 0 {
        let _ = writeln!(out, "  and {more} more");
    }
    out.push('\n');
    out
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("= {path}"),
        PathMatch::Prefix(path) => path.to_string(),
        PathMatch::Regex(regex) => format!("~ {regex}"),
    }
}

fn backend(config: &ProxyConfig, route: &Route) -> String {
    match (&route.action, &route.backend) {
        (Action::Forward(_), Some(backend)) => format!("{}:{}", backend.service, backend.port),
        (Action::Forward(id), None) => {
            config.upstreams.get(id).map_or_else(String::new, |upstream| upstream.service.to_string())
        }
        (Action::Files(files), _) => format!("ConfigMap {}", files.object),
        (Action::Respond(code), _) => format!("answers {code}"),
    }
}

fn source(route: &Route) -> String {
    route.source.as_ref().map(ToString::to_string).unwrap_or_default()
}
