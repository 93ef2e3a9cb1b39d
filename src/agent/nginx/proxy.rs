//! nginx as the loop steers it: which master runs, what its workers serve, and what they ask.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::generations::Generations;
use super::includes::{Includes, Stamp, Surroundings};
use super::log::Log;
use super::rejection::full_zone;
use super::version::Version;
use super::{Master, Nginx, User};
use crate::agent::access_log::AccessLog;
use crate::agent::dns::{self, Responders};
use crate::agent::proxy::Proxy;
use crate::agent::pulse::Pulse;
use crate::agent::rejection::Rejection;
use crate::agent::{Settings, wishes};
use crate::volume::{Digest, Manifest, ProxyInfo, ProxyKind, Timings, Volume, release};

/// Where the responders listen. Not 127.0.0.1, whose ports are the source of everybody's connections.
const RESPONDERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 80);

/// How long nginx may take to end when it is no longer asked but told.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// nginx, running or not, and what it needs of this side.
pub struct NginxProxy {
    pub(super) volume: Volume,
    pub(super) nginx: Nginx,
    pub(super) surroundings: Surroundings,
    pub(super) dns: dns::Server,
    pub(super) log: Log,
    pub(super) reload_timeout: Duration,
    version: Version,

    pub(super) master: Option<Master>,
    pub(super) in_force: Option<InForce>,
    pub(super) generations: Generations,
    /// The serial of the last stamp.
    pub(super) serial: u64,
    /// The release in force must be loaded once more: a former agent's sockets are gone.
    pub(super) stale: bool,
    /// The longest a start or reload took, for the next one's bound.
    pub(super) longest: Duration,
    /// How much memory the last start or reload took, in bytes.
    pub(super) footprint: u64,
    /// Zones that were found full, and with which release.
    full: BTreeMap<String, Digest>,
    /// Since when a reload waits for old workers to finish.
    pub(super) crowded: Option<Instant>,
    /// How long others before it have waited.
    pub(super) waited: Duration,
    pulse: Pulse,
}

/// The release that the workers serve.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What the workers answer.
    pub stamp: Stamp,
    /// What the release says of itself.
    pub manifest: Manifest,
    /// Where access is logged.
    pub access_log: AccessLog,
}

impl InForce {
    /// With this release, as things are in this container.
    pub fn new(stamp: Stamp, manifest: Manifest) -> Self {
        let access_log = AccessLog::of(manifest.access_log.as_deref());
        Self { stamp, manifest, access_log }
    }

    /// What the agent adds to the release.
    pub(super) fn includes(&self, resolver: String) -> Includes {
        let level = self.manifest.error_log_level;
        Includes { stamp: self.stamp.clone(), resolver, level, access_log: self.access_log.clone() }
    }
}

impl NginxProxy {
    /// Prepares everything that nginx needs, in the volume's `out/`, which is the working directory by now. Nothing runs
    /// yet, as far as we know.
    pub async fn prepare(settings: &Settings, volume: &Volume, nginx: Nginx) -> anyhow::Result<Self> {
        let version = judged_version(&nginx, settings.accept_proxy_version.as_deref()).await?;
        let user = User::of_workers(&settings.proxy_user)?;
        if let Some(user) = &user {
            warn_of_closed_folders(&volume.output(), user);
        }
        let responders = pick_responders().context("finding free ports for the responders")?;
        let dns = dns::Server::start(volume, responders).await.context("starting the DNS server")?;
        let log = Log::listen(Path::new("."), user.as_ref())?;
        if AccessLog::of(None).file.is_none() {
            tracing::warn!(
                "standard output has no name that nginx could open: there is no access log, unless the ConfigMap says \
                 where (access-log-path)"
            );
        }
        let surroundings =
            Surroundings { user, workers: std::thread::available_parallelism().map_or(1, usize::from), responders };
        Ok(Self {
            volume: volume.clone(),
            nginx,
            surroundings,
            dns,
            log,
            reload_timeout: settings.reload_timeout,
            version,
            master: None,
            in_force: None,
            generations: Generations::default(),
            serial: 0,
            stale: false,
            longest: Duration::ZERO,
            footprint: 0,
            full: BTreeMap::new(),
            crowded: None,
            waited: Duration::ZERO,
            pulse: Pulse::start(),
        })
    }

    pub(super) fn look_at_workers(&mut self) {
        if let Some(master) = &self.master {
            self.generations.look(&master.workers());
        }
    }

    /// Whether access can be logged by now where it could not when the workers began.
    fn can_log(&self) -> bool {
        let in_force = self.in_force.as_ref();
        in_force.is_some_and(|in_force| in_force.access_log.could_be(in_force.manifest.access_log.as_deref()))
    }

    /// Takes note of what workers have run out of. What only releases had that are gone is over.
    fn note_full_zones(&mut self) {
        for (pid, zone) in self.log.full_zones() {
            // What the master says is about a reload, and part of the reason why that failed.
            if let Some(digest) = self.generations.served_by(pid) {
                self.full.insert(zone, digest.clone());
            }
        }
        self.full.retain(|_, digest| self.volume.release(digest).is_dir());
    }

    fn note_full_zone(&mut self, digest: &Digest, rejection: &Rejection) {
        if let Some(zone) = full_zone(&rejection.message) {
            self.full.insert(zone.to_owned(), digest.clone());
        }
    }

    /// The release that a link of ours points to now, by whatever names nginx may call it.
    pub(super) fn folders(&self, digest: &Digest) -> [PathBuf; 2] {
        [self.volume.release(digest), self.volume.current()]
    }
}

impl Proxy for NginxProxy {
    const KIND: ProxyKind = ProxyKind::Nginx;

    fn pid(&self) -> Option<i32> {
        self.master.as_ref().filter(|master| !master.is_gone()).map(|master| master.pid())
    }

    fn in_force(&self) -> Option<&Digest> {
        self.in_force.as_ref().map(|in_force| &in_force.stamp.digest)
    }

    fn info(&self) -> ProxyInfo {
        ProxyInfo {
            kind: Self::KIND,
            version: self.version.to_string(),
            pid: self.pid().map(i32::cast_unsigned),
            generations: self.generations.digests(),
            answered: self.answered(),
            full: self.full.clone(),
            old_generations: self.generations.old(),
            waited: u64::try_from(self.waited().as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn answered(&self) -> (usize, usize) {
        let Some(in_force) = &self.in_force else { return (0, 0) };
        let upstreams = &in_force.manifest.upstreams;
        let answered = self.generations.client().map_or(0, |client| client.answered(upstreams));
        (answered, upstreams.len())
    }

    async fn answered_more(&self) {
        match self.generations.client() {
            Some(client) => client.changed().await,
            None => std::future::pending().await,
        }
    }

    async fn adopt(&mut self, former: Option<ProxyInfo>) {
        self.adopt_running(&former.map(|info| info.generations).unwrap_or_default()).await;
    }

    async fn start(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection> {
        self.try_to_start(digest, attempt).await.inspect_err(|rejection| self.note_full_zone(digest, rejection))
    }

    async fn take_up(&mut self, digest: &Digest, attempt: u64) -> Result<Timings, Rejection> {
        self.try_to_take_up(digest, attempt).await.inspect_err(|rejection| self.note_full_zone(digest, rejection))
    }

    async fn test(&self, trial: &Digest) -> Result<Duration, Rejection> {
        self.nginx.validate(&self.volume.trial(trial), release::MAIN).await
    }

    /// Whether the workers ask where nobody answers, or not for addresses that there are by now; or log elsewhere than
    /// the release wants although they could.
    fn is_stale(&self) -> bool {
        let deaf = self.generations.client().is_some_and(|client| !client.ipv6() && self.dns.has_ipv6());
        self.stale || deaf || self.can_log()
    }

    fn has_room(&mut self) -> Result<bool, Rejection> {
        if !self.is_there_room() {
            return Ok(false);
        }
        self.is_there_memory().map(|()| true)
    }

    fn look(&mut self) {
        if self.pulse.stood_still() {
            tracing::warn!("the agent stood still for a long time: what changed meanwhile is taken up by a reload");
            self.stale = true;
        }
        self.look_at_workers();
        self.note_full_zones();
    }

    fn access_log_trouble(&self) -> Option<&str> {
        self.in_force.as_ref()?.access_log.trouble.as_deref()
    }

    fn rest(&mut self) {
        self.no_longer_crowded();
        let Some(in_force) = self.in_force.clone() else { return };
        if wishes::current(&self.volume).as_ref() != Some(&in_force.stamp.digest)
            && let Err(err) = self.restore_former(&in_force)
        {
            tracing::warn!("{err:#}");
        }
    }

    async fn ended(&mut self) {
        match &mut self.master {
            Some(master) => master.ended().await,
            None => std::future::pending().await,
        }
    }

    fn bury(&mut self) -> Option<(Duration, String)> {
        let master = self.master.take_if(|master| master.is_gone())?;
        self.in_force = None;
        self.generations.clear();
        self.no_longer_crowded();
        Some((master.age(), master.rejection(&[]).to_string()))
    }

    async fn drain(&mut self, grace: Duration, bound: Duration) {
        let Some(master) = &mut self.master else { return };
        if master.ended_within(grace).await {
            return;
        }
        if let Err(err) = master.signal(Signal::SIGQUIT) {
            tracing::warn!("{err:#}");
        }
        if !master.ended_within(bound).await {
            tracing::warn!("requests have not finished in time and are cut (--drain-timeout)");
        }
    }

    async fn end(&mut self) {
        if let Some(master) = &mut self.master {
            let _ = master.signal(Signal::SIGTERM);
            master.ended_within(LAST_PATIENCE).await;
        }
        self.nginx.end_all().await;
        self.master = None;
        self.generations.clear();
        self.in_force = None;
    }
}

async fn judged_version(nginx: &Nginx, accepted: Option<&str>) -> anyhow::Result<Version> {
    let accepted = match accepted {
        Some(text) => Some(Version::parse(text).with_context(|| {
            format!("--accept-proxy-version: {text:?} is not a version of nginx; say it as 1.30.3")
        })?),
        None => None,
    };
    let version = nginx.version().await?;
    if let Some(warning) = version.judge(accepted).map_err(|refusal| anyhow!(refusal))? {
        tracing::warn!("{warning}");
    }
    Ok(version)
}

/// Workers log, write temporary files and read certificates below the volume.
fn warn_of_closed_folders(folder: &Path, user: &User) {
    let closed = |folder: &&Path| {
        folder.metadata().is_ok_and(|meta| {
            let mode = meta.permissions().mode();
            let needed = match (meta.uid() == user.uid.as_raw(), meta.gid() == user.gid.as_raw()) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            mode & needed == 0
        })
    };
    if let Some(closed) = folder.ancestors().find(closed) {
        tracing::warn!(
            "nginx's workers run as {} (--proxy-user), who may not enter {}: they will fail; give them the way (chmod \
             a+x), or another --proxy-dir",
            user.name,
            closed.display()
        );
    }
}

/// Two free ports: nginx tells HTTP/1.1 from HTTP/2 on one port by itself.
fn pick_responders() -> std::io::Result<Responders> {
    let bind = || TcpListener::bind(SocketAddr::from((RESPONDERS, 0)));
    let (plain, tls) = (bind()?, bind()?);
    let (plain, tls) = (plain.local_addr()?, tls.local_addr()?);
    Ok(Responders { plain, tls, h2c: plain, h2_tls: tls })
}
