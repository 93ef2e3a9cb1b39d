//! What changes without a release: endpoints, certificates and the files that workers open at request time.
//!
//! Written before a release that names it is asked for, and removed when nothing names it any more. Which changes need a
//! release is not decided here but by `Rendering::needs_release`: whatever is in `live/` needs none, whatever is not does.

mod mark;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::mark::Mark;
use crate::model::{Action, Certificate, ProxyConfig, Slot, SlotId, StaticFile, Upstream, UpstreamId};
use crate::publish::Disk;
use crate::volume::{EndpointSet, Manifest};

/// How long damage may last. Looking takes 2 µs a file.
const EVERY: Duration = Duration::from_secs(5);

/// What was written last, so that only changes are.
pub struct Live {
    disk: Disk,
    endpoints: BTreeMap<UpstreamId, (EndpointSet, Mark)>,
    slots: BTreeMap<SlotId, (Held, Mark)>,
    files: BTreeMap<String, Mark>,
    /// When it was last looked for damage.
    looked: Instant,
}

/// What a slot's file holds.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Held {
    /// The pair with this digest.
    Pair(String),
    /// A good pair from before this process was started.
    Former,
    /// A link to the default slot.
    Default,
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// Upstreams whose endpoints changed.
    pub endpoints: usize,
    /// Slots whose certificate changed.
    pub slots: usize,
    /// New files.
    pub files: usize,
}

impl Live {
    /// Writes to this volume from now on.
    pub fn new(disk: Disk) -> Self {
        Self {
            disk,
            endpoints: BTreeMap::new(),
            slots: BTreeMap::new(),
            files: BTreeMap::new(),
            looked: Instant::now(),
        }
    }

    /// Writes what differs from what was written last.
    ///
    /// After an error everything that could be written was; the next call tries the rest again.
    pub fn write(&mut self, config: &ProxyConfig) -> anyhow::Result<Written> {
        let mut written = Written::default();
        let mut failed = None;
        let mut count = |counter: &mut usize, result: anyhow::Result<bool>| match result {
            Ok(changed) => *counter += usize::from(changed),
            Err(error) => drop(failed.get_or_insert(error)),
        };
        // The default first: other slots are links to it.
        let default = SlotId::default_slot();
        if let Some(slot) = config.slots.get(&default) {
            count(&mut written.slots, self.write_default(&default, slot));
        }
        for (id, slot) in config.slots.iter().filter(|(id, _)| **id != default) {
            count(&mut written.slots, self.write_slot(id, slot));
        }
        for file in static_files(config) {
            count(&mut written.files, self.write_file(file));
        }
        for (id, upstream) in &config.upstreams {
            count(&mut written.endpoints, self.write_endpoints(id, upstream));
        }
        failed.map_or(Ok(written), Err)
    }

    /// As [`Self::forget_damaged`], when it is time to look: certificates are read while requests wait for them.
    pub fn look_for_damage(&mut self) -> usize {
        if self.looked.elapsed() < EVERY {
            return 0;
        }
        self.looked = Instant::now();
        self.forget_damaged()
    }

    /// Forgets what does not lie there any more as it was written, so that the next [`write`](Self::write) mends it; how
    /// much that is. Nobody else writes here, but a disk may fail, and a hand may slip.
    fn forget_damaged(&mut self) -> usize {
        let volume = self.disk.volume();
        let known = self.endpoints.len() + self.slots.len() + self.files.len();
        self.endpoints.retain(|id, (_, mark)| *mark == Mark::of(&volume.endpoint_set(id.as_str())));
        self.slots.retain(|id, (_, mark)| {
            let path = volume.tls_slot(id.as_str());
            let whole = *mark == Mark::of(&path);
            if !whole {
                // Not to be taken for the last good pair. What cannot be removed is replaced, or told, by the next write.
                let _ = fs::remove_file(path);
            }
            whole
        });
        self.files.retain(|name, mark| *mark == Mark::of(&volume.files().join(name)));
        known - self.endpoints.len() - self.slots.len() - self.files.len()
    }

    /// Removes what neither the configuration nor any of these releases names.
    pub fn retain(&mut self, config: &ProxyConfig, releases: &[Manifest]) -> anyhow::Result<()> {
        let upstreams: BTreeSet<&str> = config.upstreams.keys().map(UpstreamId::as_str).collect();
        let slots: BTreeSet<&str> = config.slots.keys().map(SlotId::as_str).chain([DEFAULT]).collect();
        let files: BTreeSet<&str> = static_files(config).map(|file| file.sha256.as_str()).collect();
        let named = |pick: fn(&Manifest) -> &Vec<String>, now: BTreeSet<&str>| -> BTreeSet<String> {
            let then = releases.iter().flat_map(pick).map(String::as_str);
            now.into_iter().chain(then).map(str::to_owned).collect()
        };
        let upstreams = named(|manifest| &manifest.upstreams, upstreams);
        let slots = named(|manifest| &manifest.slots, slots);
        let files = named(|manifest| &manifest.files, files);
        self.endpoints.retain(|id, _| upstreams.contains(id.as_str()));
        self.slots.retain(|id, _| slots.contains(id.as_str()));
        self.files.retain(|file, _| files.contains(file));
        let volume = self.disk.volume();
        remove_others(&volume.endpoints(), ".json", &upstreams)?;
        remove_others(&volume.tls(), ".pem", &slots)?;
        remove_others(&volume.files(), "", &files)
    }

    fn write_endpoints(&mut self, id: &UpstreamId, upstream: &Upstream) -> anyhow::Result<bool> {
        let known = self.endpoints.get(id);
        if known.is_some_and(|(set, _)| set.protocol == upstream.protocol && set.endpoints == upstream.endpoints) {
            return Ok(false);
        }
        let set = EndpointSet { protocol: upstream.protocol, endpoints: upstream.endpoints.clone() };
        let text = serde_json::to_vec(&set)?;
        let path = self.disk.volume().endpoint_set(id.as_str());
        let same = known.is_none() && fs::read(&path).is_ok_and(|there| there == text);
        if !same {
            self.disk.replace(&path, &text)?;
        }
        self.endpoints.insert(id.clone(), (set, Mark::of(&path)));
        Ok(!same)
    }

    fn write_default(&mut self, id: &SlotId, slot: &Slot) -> anyhow::Result<bool> {
        let former = self.slots.contains_key(id) || is_pair(&self.disk.volume().tls_slot(id.as_str()));
        match (&slot.certificate, &slot.fallback) {
            (Some(certificate), _) => self.write_pair(id, certificate),
            // The last good one stays while its Secret exists.
            (None, _) if slot.exists && former => Ok(false),
            (None, Some(fallback)) => self.write_pair(id, fallback),
            (None, None) => Ok(false),
        }
    }

    /// The last good pair of a Secret stays while the Secret exists; else the slot serves the default.
    fn write_slot(&mut self, id: &SlotId, slot: &Slot) -> anyhow::Result<bool> {
        if let Some(certificate) = &slot.certificate {
            return self.write_pair(id, certificate);
        }
        let path = self.disk.volume().tls_slot(id.as_str());
        let held = match self.slots.get(id) {
            Some((held, _)) => Some(held.clone()),
            None if is_pair(&path) => Some(Held::Former),
            None => None,
        };
        match held {
            Some(Held::Default) => return Ok(false),
            Some(held) if slot.exists => {
                self.slots.insert(id.clone(), (held, Mark::of(&path)));
                return Ok(false);
            }
            _ => {}
        }
        self.disk.link(Path::new(&format!("{DEFAULT}.pem")), &path)?;
        self.slots.insert(id.clone(), (Held::Default, Mark::of(&path)));
        Ok(true)
    }

    fn write_pair(&mut self, id: &SlotId, certificate: &Certificate) -> anyhow::Result<bool> {
        let held = Held::Pair(certificate.digest.clone());
        if self.slots.get(id).is_some_and(|(there, _)| *there == held) {
            return Ok(false);
        }
        let path = self.disk.volume().tls_slot(id.as_str());
        let pem = certificate.pem.expose();
        // After a restart of ours the file is mostly right already; its mode and owner are if its content is.
        let same = is_pair(&path) && fs::read(&path).is_ok_and(|there| there == pem);
        if !same {
            self.disk.replace_private(&path, pem)?;
        }
        self.slots.insert(id.clone(), (held, Mark::of(&path)));
        Ok(!same)
    }

    fn write_file(&mut self, file: &StaticFile) -> anyhow::Result<bool> {
        if self.files.contains_key(&file.sha256) {
            return Ok(false);
        }
        let path = self.disk.volume().files().join(&file.sha256);
        let same = fs::read(&path).is_ok_and(|there| there == *file.content);
        if !same {
            self.disk.replace(&path, &file.content)?;
        }
        self.files.insert(file.sha256.clone(), Mark::of(&path));
        Ok(!same)
    }
}

/// The name of the slot that others link to.
const DEFAULT: &str = "default";

fn static_files(config: &ProxyConfig) -> impl Iterator<Item = &StaticFile> {
    let actions = config.hosts.iter().flat_map(|host| &host.routes).map(|route| &route.action);
    actions
        .filter_map(|action| if let Action::Files(files) = action { Some(files) } else { None })
        .flat_map(|f| f.files.values())
}

/// Whether a pair lies there, and not a link to the default.
fn is_pair(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}

fn remove_others(folder: &Path, suffix: &str, kept: &BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(suffix));
        if name.is_some_and(|name| !name.starts_with('.') && !kept.contains(name)) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Listeners, PortId};
    use crate::publish::Publisher;
    use crate::value::Value as _;
    use crate::value::reference::ObjectName;
    use crate::volume::{Endpoints, Protocol, Volume};

    struct Bench {
        _folder: tempfile::TempDir,
        volume: Volume,
        live: Live,
        _publisher: Publisher,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::new(folder.path());
        let publisher = Publisher::open(volume.clone(), None).unwrap();
        Bench { live: Live::new(publisher.disk().clone()), volume, _folder: folder, _publisher: publisher }
    }

    fn certificate(name: &str) -> Option<Arc<Certificate>> {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        Some(Arc::new(Certificate::parse(chain.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()))
    }

    fn secret(name: &str) -> ObjectName {
        ObjectName::parse(name).unwrap()
    }

    fn slot(certificate: Option<Arc<Certificate>>, exists: bool) -> Slot {
        Slot { secret: None, certificate, exists, fallback: None }
    }

    /// A configuration with a default certificate and one of a Secret.
    fn with_slot(pair: Slot) -> ProxyConfig {
        let default = Slot { fallback: certificate("default.example"), ..slot(None, false) };
        let slots = BTreeMap::from([(SlotId::default_slot(), default), (SlotId::of(&secret("a/b")), pair)]);
        ProxyConfig {
            listeners: Listeners { http: 1, https: 2, public_http: 3, public_https: 4, ipv6: false },
            globals: Default::default(),
            globals_source: None,
            hosts: Vec::new(),
            upstreams: BTreeMap::new(),
            slots,
        }
    }

    #[test]
    fn a_key_is_for_its_owner_only_and_written_once() {
        let mut bench = bench();
        let pair = certificate("a.example");
        let config = with_slot(slot(pair.clone(), true));
        assert_eq!(bench.live.write(&config).unwrap().slots, 2);
        let path = bench.volume.tls_slot(SlotId::of(&secret("a/b")).as_str());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), pair.unwrap().pem.expose());
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(bench.live.write(&config).unwrap(), Written::default());
        // Nor by a new process that finds the right thing there.
        let mut live = Live::new(bench.live.disk.clone());
        assert_eq!(live.write(&config).unwrap(), Written::default());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn the_last_good_pair_stays_while_its_secret_exists_and_then_the_default_is_served() {
        let mut bench = bench();
        let path = bench.volume.tls_slot(SlotId::of(&secret("a/b")).as_str());
        let served = || fs::read(&path).unwrap();
        bench.live.write(&with_slot(slot(None, true))).unwrap();
        let default = fs::read(bench.volume.tls_slot(DEFAULT)).unwrap();
        assert_eq!(served(), default, "there never was a good one");
        let pair = certificate("a.example");
        bench.live.write(&with_slot(slot(pair.clone(), true))).unwrap();
        let pair = pair.unwrap().pem.expose().to_vec();
        assert_eq!(served(), pair);
        bench.live.write(&with_slot(slot(None, true))).unwrap();
        assert_eq!(served(), pair, "a broken update");
        let mut live = Live::new(bench.live.disk.clone());
        live.write(&with_slot(slot(None, true))).unwrap();
        assert_eq!(served(), pair, "also after a restart");
        live.write(&with_slot(slot(None, false))).unwrap();
        assert_eq!(served(), fs::read(bench.volume.tls_slot(DEFAULT)).unwrap(), "the Secret is gone");
        live.write(&with_slot(slot(None, true))).unwrap();
        assert_ne!(served(), pair, "what was taken away does not come back");
    }

    #[test]
    fn what_was_damaged_is_written_again_and_nothing_else() {
        let mut bench = bench();
        let config = with_slot(slot(certificate("a.example"), true));
        bench.live.write(&config).unwrap();
        assert_eq!(bench.live.forget_damaged(), 0);
        let path = bench.volume.tls_slot(SlotId::of(&secret("a/b")).as_str());
        let good = fs::read(&path).unwrap();
        let damages: [&dyn Fn(); 3] =
            [&|| fs::write(&path, &good[..good.len() / 2]).unwrap(), &|| fs::write(&path, "garbage").unwrap(), &|| {
                fs::remove_file(&path).unwrap()
            }];
        for damage in damages {
            damage();
            assert_eq!(bench.live.forget_damaged(), 1);
            assert_eq!(bench.live.write(&config).unwrap(), Written { slots: 1, ..Written::default() });
            assert_eq!(fs::read(&path).unwrap(), good);
        }
        // Garbage is no former pair of a Secret that has none at the moment.
        fs::write(&path, "garbage").unwrap();
        bench.live.forget_damaged();
        bench.live.write(&with_slot(slot(None, true))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(bench.volume.tls_slot(DEFAULT)).unwrap());
    }

    #[test]
    fn endpoints_are_written_when_they_change_and_removed_when_nothing_names_them() {
        let mut bench = bench();
        let service = secret("a/web");
        let id = UpstreamId::new(&service, &PortId::number(80), Protocol::Http, Default::default());
        let upstream = |addresses: &[&str]| Upstream {
            service: service.clone(),
            protocol: Protocol::Http,
            load_balance: Default::default(),
            endpoints: Endpoints::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect()),
        };
        let mut config = with_slot(slot(None, false));
        config.upstreams.insert(id.clone(), upstream(&["10.0.0.1:80"]));
        assert_eq!(bench.live.write(&config).unwrap().endpoints, 1);
        assert_eq!(bench.live.write(&config).unwrap().endpoints, 0);
        config.upstreams.insert(id.clone(), upstream(&[]));
        assert_eq!(bench.live.write(&config).unwrap().endpoints, 1);
        let path = bench.volume.endpoint_set(id.as_str());
        let set: EndpointSet = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(set.endpoints, Endpoints::Addresses(Vec::new()));
        config.upstreams.clear();
        let manifest = |upstreams: Vec<String>| Manifest { upstreams, ..Manifest::empty() };
        bench.live.retain(&config, &[manifest(vec![id.to_string()])]).unwrap();
        assert!(path.exists(), "workers of an older release may still ask");
        bench.live.retain(&config, &[manifest(Vec::new())]).unwrap();
        assert!(!path.exists());
        assert!(bench.volume.tls_slot(DEFAULT).exists(), "the default stays whatever is named");
    }

    #[test]
    fn one_file_that_cannot_be_written_keeps_no_other_from_being_written() {
        let mut bench = bench();
        let config = with_slot(slot(certificate("a.example"), true));
        let path = bench.volume.tls_slot(SlotId::of(&secret("a/b")).as_str());
        // A folder in its place: no rename gets over that.
        fs::create_dir_all(path.join("x")).unwrap();
        let error = format!("{:#}", bench.live.write(&config).unwrap_err());
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(bench.volume.tls_slot(DEFAULT).exists());
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(bench.live.write(&config).unwrap().slots, 1);
    }
}
