//! The order of things: from a snapshot to a release in force, and what is told on the way.
//!
//! A state machine whose every step returns: it is called when objects changed ([`Reconciler::take_up`]) and when the
//! agent may have answered ([`Reconciler::look`]), and keeps nothing waiting meanwhile, so that endpoints and
//! certificates go live whatever a release is waiting for. Each step looks at what there is and does what is due.

mod answers;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tracing::{error, info, warn};

use self::told::Told;
use crate::annotations::Globals;
use crate::live::{self, Live};
use crate::model::{Certificate, ProxyConfig};
use crate::problem::{Problem, Reason, Subject};
use crate::publish::Publisher;
use crate::quarantine::{Attempt, Good, Quarantine};
use crate::render::{Base, Doublings, History, SourceMap, render, render_trial};
use crate::reports;
use crate::settings::{Flags, Settings};
use crate::snapshot::Snapshot;
use crate::translate::{HeldBack, translate};
use crate::value::reference::ObjectName;
use crate::volume::{Digest, FaultClass, Outcome, ProxyInfo, ProxyKind, Report};

/// How long a release may be without an answer before a newer one is published over it.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this time the same objects may mean something else: a certificate has expired.
const STALE: Duration = Duration::from_secs(600);

/// What the reconciler needs to know from the start.
pub struct Setup {
    /// The command line, as far as it decides what an Ingress means.
    pub flags: Flags,
    /// Which proxy.
    pub proxy: ProxyKind,
    /// The certificate that is served where there is no other.
    pub generated: Arc<Certificate>,
    /// The controller's hold on the volume.
    pub publisher: Publisher,
}

/// From snapshots to releases in force.
pub struct Reconciler {
    setup: Setup,
    live: Live,
    quarantine: Quarantine,
    wish: Option<Wish>,
    newest: Option<Newest>,
    asked: Option<Asked>,
    good: Option<(Digest, Good)>,
    /// The test that the agent was asked for, and whom it is about.
    trial: Option<(Digest, BTreeSet<Subject>)>,
    told: Told,
    /// What the proxy has turned out to need more of.
    doublings: Doublings,
    /// What the proxy's side found wrong with the settings of a release that it took.
    unusable: Option<Problem>,
    /// What is wrong around us, by what was being done.
    faults: BTreeMap<&'static str, String>,
    view: Arc<View>,
}

/// What the newest snapshot means with nobody held back.
struct Wish {
    snapshot: Arc<Snapshot>,
    settings: Arc<Settings>,
    ours: Arc<BTreeSet<ObjectName>>,
    /// What arrival and settings tell.
    problems: Vec<Problem>,
    config: Arc<ProxyConfig>,
    /// What translation tells.
    told: Vec<Problem>,
    at: Instant,
}

/// What is to be in force.
struct Newest {
    attempt: Attempt,
    held: HeldBack,
    /// The settings for the whole proxy, where they are not those that are wished.
    settings: Option<Globals>,
    problems: Vec<Problem>,
    /// It was written to `live/`.
    live: bool,
    /// It was rendered, and published if that was due.
    published: bool,
}

/// The release that the agent is to put in force.
struct Asked {
    digest: Digest,
    attempt: Attempt,
    held: HeldBack,
    doublings: Doublings,
    source_map: SourceMap,
    problems: Vec<Problem>,
    since: Instant,
    report: Option<Report>,
}

/// How things stand, for whoever tells others.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The newest configuration, in force or not.
    pub config: Option<Arc<ProxyConfig>>,
    /// The objects it was made from.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The settings that it was translated with.
    pub settings: Option<Arc<Settings>>,
    /// The Ingresses among them that are ours.
    pub ours: Arc<BTreeSet<ObjectName>>,
    /// Everything that people are told about their objects.
    pub problems: Vec<Problem>,
    /// The configuration in force.
    pub in_force: Option<Arc<ProxyConfig>>,
    /// The objects that are held back.
    pub held: BTreeSet<ObjectName>,
    /// The answer of the agent to what it was last asked.
    pub report: Option<Report>,
    /// What is wrong around us, one sentence each.
    pub faults: Vec<String>,
}

impl Reconciler {
    /// Nothing is known and nothing done yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            live: Live::new(setup.publisher.disk().clone()),
            setup,
            quarantine: Quarantine::default(),
            wish: None,
            newest: None,
            asked: None,
            good: None,
            trial: None,
            told: Told::default(),
            doublings: Doublings::default(),
            unusable: None,
            faults: BTreeMap::new(),
            view: Arc::default(),
        }
    }

    /// The objects are these now.
    pub fn take_up(&mut self, mut snapshot: Snapshot) {
        snapshot.generated_certificate = Some(self.setup.generated.clone());
        self.translate(Arc::new(snapshot));
        self.advance(true);
    }

    /// Does whatever is due.
    pub fn look(&mut self) {
        let stale = self.wish.as_ref().filter(|wish| wish.at.elapsed() > STALE).map(|wish| wish.snapshot.clone());
        if let Some(snapshot) = &stale {
            self.translate(snapshot.clone());
        }
        if let (damaged @ 1.., Some(newest)) = (self.live.look_for_damage(), &mut self.newest) {
            warn!(damaged, "files in live/ were damaged or changed by somebody else; they are written again");
            newest.live = false;
        }
        self.advance(stale.is_some());
    }

    /// How things stand.
    pub fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Goes on for as long as there is something to do. Each round ends with a question to the agent; a few are
    /// answered already.
    fn advance(&mut self, mut changed: bool) {
        let faults = self.faults.clone();
        while self.hear() || self.hear_of_trial() || self.write_live() || self.grow() || self.publish() || self.ask() {
            changed = true;
        }
        let global = self.quarantine.global().map(|words| {
            format!("the proxy refuses what holds for all; the former configuration stays in force: {words}")
        });
        self.fault("global", global);
        if changed || faults != self.faults {
            self.tell();
        }
    }

    fn translate(&mut self, snapshot: Arc<Snapshot>) {
        let (settings, mut problems) = Settings::read(&self.setup.flags, &snapshot);
        problems.extend(snapshot.problems.iter().cloned());
        let translation = translate(&snapshot, &settings, &HeldBack::default(), seconds());
        let (config, told) = (Arc::new(translation.config), translation.problems);
        let (settings, ours) = (Arc::new(settings), Arc::new(translation.ours));
        self.quarantine.review(&config);
        self.wish = Some(Wish { snapshot, settings, ours, problems, config, told, at: Instant::now() });
        self.hold_back();
    }

    /// Makes what is to be in force of what is wished and who is held back.
    fn hold_back(&mut self) {
        let Some(wish) = &self.wish else { return };
        let held = self.quarantine.held_back();
        let (mut config, told) = if held.0.is_empty() {
            (wish.config.clone(), wish.told.clone())
        } else {
            let translation = translate(&wish.snapshot, &wish.settings, &held, seconds());
            (Arc::new(translation.config), translation.problems)
        };
        let settings = self.quarantine.settings().map(|(instead, _)| instead.clone());
        if let Some(settings) = &settings {
            Arc::make_mut(&mut config).globals = settings.clone();
        }
        let problems = wish.problems.iter().cloned().chain(told).collect();
        let attempt = Attempt { config, wish: wish.config.clone(), snapshot: wish.snapshot.clone() };
        self.newest = Some(Newest { attempt, held, settings, problems, live: false, published: false });
    }

    fn write_live(&mut self) -> bool {
        let Some(newest) = self.newest.as_mut().filter(|newest| !newest.live) else { return false };
        match self.live.write(&newest.attempt.config) {
            Ok(written) => {
                newest.live = true;
                let live::Written { endpoints, slots, files } = written;
                if written != live::Written::default() {
                    info!(endpoints, certificates = slots, files, "changed without a release");
                }
                self.fault("live", None);
                true
            }
            Err(error) => {
                self.fault("live", Some(format!("endpoints and certificates cannot be written: {error:#}")));
                self.clean_up();
                false
            }
        }
    }

    /// Renders the newest configuration and asks for it, unless something speaks against it.
    fn publish(&mut self) -> bool {
        let waits = self.asked.as_ref().is_some_and(|asked| asked.report.is_none() && asked.since.elapsed() < PATIENCE);
        if waits || self.quarantine.blocks() {
            return false;
        }
        let Some(newest) = self.newest.as_mut().filter(|newest| newest.live && !newest.published) else { return false };
        let base = self.good.as_ref().map(|(digest, good)| Base { config: &good.config, digest: digest.clone() });
        let history = History { base, doublings: self.doublings.clone() };
        let rendering = match render(&newest.attempt.config, self.setup.proxy, &history) {
            Ok(rendering) => rendering,
            Err(error) => {
                // A fault of ours. It is treated as if the proxy had refused it, so that it harms one object at most.
                error!("rendering: {error}");
                newest.published = true;
                let good = self.good.as_ref().map(|(_, good)| good);
                self.quarantine.refused(&newest.attempt, &newest.held, error.source.as_ref(), &error.to_string(), good);
                self.translate_again();
                return true;
            }
        };
        let needed = rendering.needs_release(self.asked.as_ref().map(|asked| &asked.digest));
        let digest = rendering.release.digest.clone();
        let asked = Asked {
            digest: digest.clone(),
            attempt: newest.attempt.clone(),
            held: newest.held.clone(),
            doublings: history.doublings,
            source_map: rendering.source_map,
            problems: rendering.problems,
            since: Instant::now(),
            report: None,
        };
        if !needed {
            newest.published = true;
            self.ask_for_the_same(asked);
            return true;
        }
        if let Err(error) = self.setup.publisher.publish(&rendering.release) {
            self.fault("publish", Some(format!("releases cannot be written: {error:#}")));
            self.clean_up();
            return false;
        }
        newest.published = true;
        info!(release = digest.short(), hosts = asked.attempt.config.hosts.len(), "published");
        self.asked = Some(asked);
        self.fault("publish", None);
        true
    }

    /// The newest configuration differs in nothing that a release holds from the one that was asked for.
    fn ask_for_the_same(&mut self, asked: Asked) {
        let Some(former) = self.asked.replace(asked) else { return };
        let Some(asked) = &mut self.asked else { return };
        (asked.since, asked.report) = (former.since, former.report);
        let Some(report) = &asked.report else { return };
        if report.outcome == Outcome::Accepted {
            self.good = Some((asked.digest.clone(), asked.good()));
        } else if report.outcome == Outcome::Rejected && report.class != Some(FaultClass::Environment) {
            // What changed, or who was held back, makes no difference to the proxy.
            let good = self.good.as_ref().map(|(_, good)| good);
            self.quarantine.refused(&asked.attempt, &asked.held, None, &report.message, good);
            self.translate_again();
        }
    }

    /// Has the agent test what the search for a culprit asks for.
    fn ask(&mut self) -> bool {
        if self.trial.is_some() {
            return false;
        }
        let Some((config, subjects)) = self.quarantine.question() else { return false };
        let written = match render_trial(config, self.setup.proxy, &subjects, &self.doublings) {
            Ok(rendering) => {
                let release = rendering.release;
                self.setup.publisher.publish_trial(&release).map(|()| release.digest)
            }
            Err(error) => {
                let good = self.good.as_ref().map(|(_, good)| good);
                self.quarantine.answer(Err(error.to_string()), good);
                self.translate_again();
                return true;
            }
        };
        match written {
            Ok(digest) => {
                self.trial = Some((digest, subjects));
                self.fault("trial", None);
                true
            }
            Err(error) => {
                self.fault("trial", Some(format!("what is to be tested cannot be written: {error:#}")));
                false
            }
        }
    }

    /// After the quarantine may have changed its mind: what is to be published may be something else.
    fn translate_again(&mut self) {
        let held = self.quarantine.held_back();
        let settings = self.quarantine.settings().map(|(instead, _)| instead);
        if self.newest.as_ref().is_some_and(|newest| newest.held != held || newest.settings.as_ref() != settings) {
            self.hold_back();
        }
    }

    /// Removes from the volume what nobody needs any more.
    fn clean_up(&mut self) {
        let volume = self.setup.publisher.disk().volume();
        let info = match reports::proxy_info(volume) {
            Ok(info) => info,
            Err(error) => {
                warn!("what the proxy's side says of itself is no good: {error:#}");
                None
            }
        };
        if let Err(error) = self.remove_unneeded(info.as_ref()) {
            warn!("removing what is no longer needed: {error:#}");
        }
    }

    fn remove_unneeded(&mut self, info: Option<&ProxyInfo>) -> anyhow::Result<()> {
        let publisher = &self.setup.publisher;
        let generations = info.iter().flat_map(|info| &info.generations);
        let ours = self.asked.iter().map(|asked| &asked.digest).chain(self.good.iter().map(|(digest, _)| digest));
        let mut keep: BTreeSet<Digest> = generations.chain(ours).cloned().collect();
        keep.extend(reports::current(publisher.disk().volume()));
        let trials = self.trial.iter().map(|(digest, _)| digest.clone()).collect();
        publisher.retain(&keep, &trials)?;
        // Workers may still open what is in `live/`; without knowing which of them live, nothing there is removed.
        let (Some(newest), Some(_)) = (&self.newest, info) else { return Ok(()) };
        let manifests: Vec<_> = keep.iter().filter_map(|digest| publisher.manifest(digest)).collect();
        self.live.retain(&newest.attempt.config, &manifests).context("removing from live/")
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.newest.iter().flat_map(|newest| newest.problems.iter().cloned()).collect();
        problems.extend(self.asked.iter().flat_map(|asked| asked.problems.iter().cloned()));
        problems.extend(self.quarantine.problems());
        problems.extend(self.unusable.clone());
        problems.extend(self.refused_settings());
        problems.sort();
        problems.dedup();
        problems
    }

    /// What is told on the ConfigMap about settings that the proxy does not take.
    fn refused_settings(&self) -> Option<Problem> {
        let (_, words) = self.quarantine.settings()?;
        let subject = self.setup.flags.config_map_of(&self.wish.as_ref()?.snapshot)?;
        let message = format!("brings what the proxy refuses: {words}; the keys that are named there must change");
        let effect = "the settings of the whole proxy are those that were last accepted, else the defaults, until then";
        Some(subject.rejected(Reason::HeldBack, "data", message, effect))
    }

    fn tell(&mut self) {
        let problems = self.problems();
        self.told.tell(&problems);
        self.view = Arc::new(View {
            config: self.newest.as_ref().map(|newest| newest.attempt.config.clone()),
            snapshot: self.wish.as_ref().map(|wish| wish.snapshot.clone()),
            settings: self.wish.as_ref().map(|wish| wish.settings.clone()),
            ours: self.wish.as_ref().map(|wish| wish.ours.clone()).unwrap_or_default(),
            problems,
            in_force: self.good.as_ref().map(|(_, good)| good.config.clone()),
            held: self.quarantine.held_back().0.into_keys().collect(),
            report: self.asked.as_ref().and_then(|asked| asked.report.clone()),
            faults: self.faults.values().cloned().collect(),
        });
    }

    /// Notes that something around us is wrong, or no longer; tells it once. Never a change worth another round.
    fn fault(&mut self, doing: &'static str, wrong: Option<String>) -> bool {
        match wrong {
            Some(words) if self.faults.get(doing) != Some(&words) => {
                error!("{words}; trying again");
                self.faults.insert(doing, words);
            }
            Some(_) => {}
            None => {
                if self.faults.remove(doing).is_some() {
                    info!("what was wrong is over: {doing}");
                }
            }
        }
        false
    }
}

/// Seconds since 1970.
fn seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
