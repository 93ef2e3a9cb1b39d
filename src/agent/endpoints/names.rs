//! Looks up the names of ExternalName Services, as the Pod's own resolv.conf says.
//!
//! Nothing is kept here: who asks decides how long an answer holds. Every answer is cleared of addresses by which a
//! name from outside could reach what listens inside the Pod (DNS rebinding).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;

/// An answer without a time to live, or with none to speak of, holds this long.
const SHORTEST: Duration = Duration::from_secs(1);
/// No answer holds longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long it holds that there is nothing, when the answer does not say.
const NOTHING: Duration = Duration::from_secs(10);

/// How many names are looked up at the same time: a start with thousands must not drown the cluster's DNS.
const AT_ONCE: usize = 64;

/// The resolver of this Pod.
pub struct Names {
    origin: Origin,
    turns: Semaphore,
}

enum Origin {
    Given(Arc<Stub>),
    File { path: PathBuf, read: Mutex<Option<(FileStamp, Arc<Stub>)>> },
}

/// Inode, and time of the last change.
type FileStamp = (u64, i64, i64);

/// A resolver and what it does with relative names.
struct Stub {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

/// What a name stands for at this moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// These addresses, sorted.
    Found {
        /// Those that may be connected to; perhaps none.
        addresses: Vec<IpAddr>,
        /// Those that were left out.
        refused: Vec<IpAddr>,
        /// How long this holds.
        fresh_for: Duration,
    },
    /// There is no such name, or it has no address.
    Nothing {
        /// How long this holds.
        fresh_for: Duration,
    },
    /// Nobody knows: the resolver did not answer, or failed. Why, as the end of a sentence.
    Failed(String),
}

impl Names {
    /// As `/etc/resolv.conf` says, also after it changed.
    pub fn system() -> Self {
        Self::from(Origin::File { path: "/etc/resolv.conf".into(), read: Mutex::default() })
    }

    /// As `config` and `options` say.
    pub fn new(config: ResolverConfig, options: ResolverOpts) -> anyhow::Result<Self> {
        Ok(Self::from(Origin::Given(Arc::new(Stub::new(config, options)?))))
    }

    /// Asks for the addresses of `host`: the IPv4 ones, or else the IPv6 ones.
    pub(super) async fn look_up(&self, host: &str) -> Answer {
        let answer = match host.parse() {
            Ok(address) => Answer::Found { addresses: vec![address], refused: Vec::new(), fresh_for: LONGEST },
            Err(_) => {
                // Never closed.
                let _turn = self.turns.acquire().await;
                match self.stub() {
                    Ok(stub) => stub.look_up(host).await,
                    Err(error) => Answer::Failed(format!("{error:#}")),
                }
            }
        };
        clear(answer, own_addresses())
    }

    fn stub(&self) -> anyhow::Result<Arc<Stub>> {
        let (path, read) = match &self.origin {
            Origin::Given(stub) => return Ok(stub.clone()),
            Origin::File { path, read } => (path, read),
        };
        let what = || format!("reading {}", path.display());
        let metadata = std::fs::metadata(path).with_context(what)?;
        let stamp = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, stub)) = &*read
            && *known == stamp
        {
            return Ok(stub.clone());
        }
        let (config, options) = parse_resolv_conf(std::fs::read(path).with_context(what)?).with_context(what)?;
        let stub = Arc::new(Stub::new(config, options)?);
        *read = Some((stamp, stub.clone()));
        Ok(stub)
    }
}

impl From<Origin> for Names {
    fn from(origin: Origin) -> Self {
        Self { origin, turns: Semaphore::new(AT_ONCE) }
    }
}

impl Stub {
    fn new(config: ResolverConfig, mut options: ResolverOpts) -> anyhow::Result<Self> {
        // A Service's name is looked up in DNS alone, as the cluster's own DNS server would.
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let search = match config.search() {
            [] => config.domain().cloned().into_iter().collect(),
            search => search.to_vec(),
        };
        let ndots = options.ndots;
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .context("building the resolver for ExternalName Services")?;
        Ok(Self { resolver, search, ndots })
    }

    /// Tries the candidates in turn. That one of them does not exist means nothing while another one's servers fail.
    async fn look_up(&self, host: &str) -> Answer {
        let candidates = match self.candidates(host) {
            Ok(candidates) => candidates,
            Err(error) => return Answer::Failed(error),
        };
        let mut result = Answer::Nothing { fresh_for: NOTHING };
        for name in candidates {
            match (self.look_up_absolute(&name).await, &mut result) {
                (found @ Answer::Found { .. }, _) => return found,
                (failed @ Answer::Failed(_), _) => result = failed,
                (Answer::Nothing { fresh_for }, Answer::Nothing { fresh_for: least }) => *least = fresh_for.min(*least),
                (Answer::Nothing { .. }, _) => {}
            }
        }
        result
    }

    /// The absolute names that `host` may mean, by the rules of resolv.conf(5).
    fn candidates(&self, host: &str) -> Result<Vec<Name>, String> {
        let name = Name::from_utf8(host).map_err(|error| format!("it is not a DNS name: {error}"))?;
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if name.is_fqdn() {
            return Ok(vec![absolute]);
        }
        let mut names: Vec<_> = self.search.iter().filter_map(|s| name.clone().append_domain(s).ok()).collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, absolute);
        Ok(names)
    }

    async fn look_up_absolute(&self, name: &Name) -> Answer {
        let mut least = LONGEST;
        for kind in [RecordType::A, RecordType::AAAA] {
            // The size of the cache is a wish: without this an answer could outlive its time to live once more.
            self.resolver.clear_lookup_cache(name.clone(), kind);
            match self.resolver.lookup(name.clone(), kind).await {
                Ok(lookup) => {
                    let records = lookup.answers();
                    let mut addresses: Vec<_> = records.iter().filter_map(|r| address(&r.data)).collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                    if !addresses.is_empty() {
                        let ttl = records.iter().map(|r| r.ttl).min().unwrap_or_default();
                        let fresh_for = Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST);
                        return Answer::Found { addresses, refused: Vec::new(), fresh_for };
                    }
                    least = least.min(NOTHING);
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                    if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
                {
                    let ttl = none.negative_ttl.map_or(NOTHING, |ttl| Duration::from_secs(ttl.into()));
                    // What is created just now shall not be waited for too long.
                    least = least.min(ttl.clamp(SHORTEST, NOTHING));
                }
                Err(error) => return Answer::Failed(error.to_string()),
            }
        }
        Answer::Nothing { fresh_for: least }
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

/// Moves what may not be connected to out of the answer.
fn clear(answer: Answer, own: Option<BTreeSet<IpAddr>>) -> Answer {
    match (answer, own) {
        (Answer::Found { addresses, fresh_for, .. }, Some(own)) => {
            let (refused, addresses) = addresses.into_iter().partition(|&a| is_inside(a) || own.contains(&plain(a)));
            Answer::Found { addresses, refused, fresh_for }
        }
        (Answer::Found { .. }, None) => Answer::Failed("the addresses of this Pod cannot be listed".to_owned()),
        (answer, _) => answer,
    }
}

/// Whether an address leads to this machine or its own link, whoever looks.
fn is_inside(address: IpAddr) -> bool {
    match plain(address) {
        // All of 0.0.0.0/8 is "this network"; 169.254.169.254 is where clouds keep their credentials.
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.octets()[0] == 0 || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast(),
    }
}

/// IPv4 in any of its disguises as IPv4.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            // IPv4-compatible (RFC 4291 §2.5.5.1), but neither `::` nor `::1`.
            [0, 0, 0, 0, 0, 0, high, _] if high != 0 => embedded(v6),
            // NAT64 (RFC 6052).
            [0x64, 0xff9b, 0, 0, 0, 0, _, _] => embedded(v6),
            _ => v6.to_canonical(),
        },
        v4 => v4,
    }
}

fn embedded(address: Ipv6Addr) -> IpAddr {
    let [.., a, b, c, d] = address.octets();
    IpAddr::from([a, b, c, d])
}

/// The addresses of this Pod at this moment; `None` if the kernel does not say.
fn own_addresses() -> Option<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    Some(interfaces.filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stub(search: &[&str], ndots: usize) -> Stub {
        let mut options = ResolverOpts::default();
        options.ndots = ndots;
        let search = search.iter().map(|s| Name::from_utf8(s).unwrap()).collect();
        Stub::new(ResolverConfig::from_parts(None, search, Vec::new()), options).unwrap()
    }

    #[tokio::test]
    async fn relative_names_go_through_the_search_list() {
        let check = |ndots, host: &str, expected: &[&str]| {
            let names = stub(&["ns.svc.cluster.local.", "svc.cluster.local."], ndots).candidates(host).unwrap();
            assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{host} ndots:{ndots}");
        };
        check(5, "a.example", &["a.example.ns.svc.cluster.local.", "a.example.svc.cluster.local.", "a.example."]);
        check(1, "a.example", &["a.example.", "a.example.ns.svc.cluster.local.", "a.example.svc.cluster.local."]);
        check(5, "a.example.", &["a.example."]);
        check(1, "a", &["a.ns.svc.cluster.local.", "a.svc.cluster.local.", "a."]);
    }

    #[test]
    fn addresses_that_lead_inside_are_left_out_in_every_disguise() {
        let addresses = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        let inside = addresses(&[
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "::ffff:169.254.1.1",
            "10.1.1.1",
            "::ffff:10.1.1.1",
            "fd00::7",
        ]);
        let outside = addresses(&["10.1.1.2", "93.184.216.34", "2001:db8::1", "fd00::8", "::ffff:10.1.1.2"]);
        let own = addresses(&["10.1.1.1", "fd00::7"]).into_iter().collect();
        let all = inside.iter().chain(&outside).copied().collect();
        let fresh_for = SHORTEST;
        assert_eq!(
            clear(Answer::Found { addresses: all, refused: Vec::new(), fresh_for }, Some(own)),
            Answer::Found { addresses: outside, refused: inside, fresh_for }
        );
    }

    #[test]
    fn the_pod_knows_its_own_addresses() {
        assert!(own_addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_literal_address_is_cleared_too() {
        let names = Names::from(Origin::Given(Arc::new(stub(&[], 1))));
        let Answer::Found { addresses, refused, .. } = names.look_up("127.0.0.1").await else { panic!("not found") };
        assert_eq!((addresses, refused), (vec![], vec!["127.0.0.1".parse().unwrap()]));
    }

    #[tokio::test]
    async fn a_missing_resolv_conf_is_a_failure_and_not_an_empty_answer() {
        let path = "/nonexistent/resolv.conf".into();
        let names = Names::from(Origin::File { path, read: Mutex::default() });
        let Answer::Failed(why) = names.look_up("a.example").await else { panic!("not failed") };
        assert!(why.contains("reading /nonexistent/resolv.conf"), "{why}");
    }
}
