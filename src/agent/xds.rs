//! Releases and live data as one aggregated delta discovery service on a unix socket, for Envoy.
//!
//! What is to be told follows from comparing what Envoy holds with what it shall hold ([`session`], pure). Here are the
//! socket, the one Envoy that counts (the last that came), and what wakes the comparison: another release, endpoints or
//! a certificate that changed, a word of Envoy. Whether a release is good is for the caller to conclude from
//! [`Progress`].

mod channel;
pub mod kind;
mod live;
pub mod session;
mod stream;
pub mod target;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use self::kind::Kind;
use self::live::View;
use self::session::{Refusal, Session};
use self::target::Target;
use super::endpoints::Source;
use super::endpoints::directory::{Change, Directory};
use crate::volume::Volume;

/// How often somebody asks for the endpoints of everything, so that names go on being looked up.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The service. Cheap to clone; it serves as long as the runtime lives.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

/// How far Envoy is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// There is an Envoy.
    pub connected: bool,
    /// It holds what it shall hold, and has said so.
    pub settled: bool,
    /// It has refused a part of it.
    pub refusal: Option<Refusal>,
    /// How many upstreams have their endpoints, of how many.
    pub answered: (usize, usize),
}

struct Shared {
    volume: Volume,
    source: Source,
    state: Mutex<State>,
    /// The stream that serves looks again.
    wake: watch::Sender<()>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct State {
    target: Arc<Target>,
    /// Somebody has said what Envoy shall hold. Until then nothing is told: one that runs already holds what it shall,
    /// and would let go of everything.
    aimed: bool,
    session: Session,
    /// Which stream counts.
    stream: u64,
    connected: bool,
    refusal: Option<Refusal>,
}

impl Server {
    /// Serves on `socket`, where a former one may lie: the caller holds the lock of the volume.
    pub fn start(volume: &Volume, source: Source, socket: &Path) -> anyhow::Result<Self> {
        let what = || format!("listening on {}", socket.display());
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).with_context(what)?;
        std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600)).with_context(what)?;
        let shared = Arc::new(Shared {
            volume: volume.clone(),
            source,
            state: Mutex::default(),
            wake: watch::Sender::new(()),
            progress: watch::Sender::default(),
        });
        tokio::spawn(stream::serve(listener, shared.clone()));
        tokio::spawn(follow_endpoints(Arc::downgrade(&shared)));
        follow_certificates(&shared)?;
        Ok(Self(shared))
    }

    /// What Envoy shall hold by now.
    pub fn target(&self) -> Arc<Target> {
        self.0.state().target.clone()
    }

    /// Envoy shall hold this from now on.
    pub fn aim(&self, target: Arc<Target>) {
        let mut state = self.0.state();
        let former = std::mem::replace(&mut state.target, target.clone());
        state.session.aim(&former, &target);
        state.refusal = None;
        state.aimed = true;
        self.0.tell(&state);
        drop(state);
        self.0.wake.send_replace(());
    }

    /// How far Envoy is, and how it goes on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    /// What Envoy has not acknowledged yet, in words.
    pub fn missing(&self) -> String {
        let state = self.0.state();
        if state.connected { state.session.missing(&state.target) } else { "Envoy has not come to ask".to_owned() }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An Envoy has come; the one before, if any, does not count any more.
    fn begin(&self) -> u64 {
        let mut state = self.state();
        state.stream += 1;
        state.session = Session::default();
        state.connected = true;
        self.tell(&state);
        drop(state);
        self.wake.send_replace(());
        self.state().stream
    }

    /// It has gone.
    fn end(&self, stream: u64) {
        let mut state = self.state();
        if state.stream == stream {
            state.session = Session::default();
            state.connected = false;
            self.tell(&state);
        }
    }

    fn hear(&self, stream: u64, request: DeltaDiscoveryRequest) {
        let mut state = self.state();
        if state.stream != stream {
            return;
        }
        let State { target, session, refusal, .. } = &mut *state;
        if let Some(refused) = session.hear(request, target) {
            let (kind, names) = (refused.kind, refused.names.len());
            tracing::error!(?kind, names, "Envoy refuses: {}", super::rejection::printable(&refused.words));
            if kind.is_of_release() && !refused.superseded {
                refusal.get_or_insert(refused);
            }
        }
    }

    /// What Envoy is to be told now; `None` if another one counts.
    fn advance(&self, stream: u64) -> Option<Vec<DeltaDiscoveryResponse>> {
        let mut state = self.state();
        if state.stream != stream {
            return None;
        }
        if !state.aimed {
            return Some(vec![]);
        }
        let State { target, session, .. } = &mut *state;
        let live = View { volume: &self.volume, source: &self.source, certificates: &target.certificates };
        let pushes = session.advance(target, &live);
        for push in &pushes {
            let (resources, removed) = (push.resources.len(), push.removed_resources.len());
            tracing::debug!(kind = ?Kind::of(&push.type_url), nonce = push.nonce, resources, removed, "telling Envoy");
        }
        self.tell(&state);
        Some(pushes)
    }

    /// Says how far it is.
    fn tell(&self, state: &State) {
        let settled = state.connected && state.session.is_settled();
        let answered = match settled {
            true => (state.target.services().count(), state.target.services().count()),
            false => state.session.answered(&state.target),
        };
        let progress = Progress { connected: state.connected, settled, refusal: state.refusal.clone(), answered };
        self.progress.send_if_modified(|told| std::mem::replace(told, progress.clone()) != progress);
    }

    fn endpoints_changed(&self, changed: Option<&[String]>) {
        let mut state = self.state();
        match changed {
            Some(ids) => state.session.changed(Kind::Endpoints, ids),
            None => state.session.all_changed(Kind::Endpoints),
        }
        drop(state);
        self.wake.send_replace(());
    }

    /// Certificates have changed: of these slots, by name.
    fn certificates_changed(&self, slots: &BTreeSet<String>) {
        let mut state = self.state();
        let State { target, session, .. } = &mut *state;
        let certificates = &target.certificates;
        // Slots without a pair of their own are links to the default's.
        if slots.contains(&certificates.default) {
            session.all_changed(Kind::Secret);
        } else {
            let names: Vec<_> = session
                .asked_for(Kind::Secret)
                .filter(|name| slots.contains(certificates.slot(name)))
                .cloned()
                .collect();
            session.changed(Kind::Secret, &names);
        }
        drop(state);
        self.wake.send_replace(());
    }

    /// Whoever goes on asking keeps names looked up.
    fn ask_for_endpoints(&self) {
        let names: Vec<_> = self.state().session.asked_for(Kind::Endpoints).cloned().collect();
        for name in names {
            self.source.upstream(&name);
        }
    }
}

async fn follow_endpoints(shared: Weak<Shared>) {
    let Some(mut changes) = shared.upgrade().map(|shared| shared.source.changes()) else { return };
    let mut again = tokio::time::interval(ASK_AGAIN);
    loop {
        let changed = tokio::select! {
            changed = changes.recv() => Some(changed),
            _ = again.tick() => None,
        };
        let Some(shared) = shared.upgrade() else { return };
        match changed {
            Some(Ok(ids)) => shared.endpoints_changed(Some(&ids)),
            Some(Err(RecvError::Lagged(_))) => shared.endpoints_changed(None),
            Some(Err(RecvError::Closed)) => return,
            None => shared.ask_for_endpoints(),
        }
    }
}

fn follow_certificates(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let mut directory = Directory::new(shared.volume.tls());
    let shared = Arc::downgrade(shared);
    let follow = move || {
        // What is there by now is read when somebody asks for it.
        directory.look();
        while shared.strong_count() > 0 {
            let changes = directory.wait();
            let names = changes.into_iter().map(|change| match change {
                Change::Written(name) | Change::Removed(name) => name,
            });
            let slots: BTreeSet<_> = names.filter_map(|name| name.strip_suffix(".pem").map(str::to_owned)).collect();
            if let Some(shared) = shared.upgrade().filter(|_| !slots.is_empty()) {
                shared.certificates_changed(&slots);
            }
        }
    };
    std::thread::Builder::new().name("certificates".to_owned()).spawn(follow).context("watching certificates")?;
    Ok(())
}
