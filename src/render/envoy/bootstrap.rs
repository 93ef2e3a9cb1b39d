//! What Envoy is started with. It changes with this program alone: whatever depends on objects comes from the agent.

use askama::Template;

use crate::render::RenderError;
use crate::volume::socket;

/// The largest program of a regular expression. Envoy's own default is 100, which long but harmless paths exceed; what
/// bounds them is the length of [`crate::value::regex::Regex`].
const REGEX_SIZE: u32 = 1 << 20;

/// The most connections of clients, for all listeners together: beyond them Envoy refuses new ones rather than running
/// out of memory.
const CONNECTIONS: u32 = 1 << 17;

#[derive(Template)]
#[template(path = "envoy/bootstrap.json")]
struct View {
    admin: &'static str,
    xds: &'static str,
    regex_size: u32,
    connections: u32,
}

/// The bootstrap of every release.
pub(super) fn text() -> Result<String, RenderError> {
    let view = View { admin: socket::ADMIN, xds: socket::XDS, regex_size: REGEX_SIZE, connections: CONNECTIONS };
    view.render().map_err(|_| RenderError { source: None })
}
