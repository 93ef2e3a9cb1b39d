//! Answers nginx's `server … resolve` from `live/endpoints`, so that endpoints change without a reload.
//!
//! nginx asks for the endpoints of every upstream as SRV records and asks again when the answer runs out. The server
//! turns this into a push: it holds a question until the answer is news to the one who asked. What the rules are and
//! what was measured for them:
//!
//! - A first question is answered at once, and so is a repeat of an answered one: nginx repeats after 5 s, and then
//!   the answer was lost. All others wait for a change, 25 s at most ([`table`]).
//! - Who has seen what is known per [`Client`]: each start and each reload of nginx gets sockets of its own, because a
//!   fresh nginx knows nothing and must not wait.
//! - An upstream without endpoints is answered with a responder of ours that says 503 in the upstream's protocol. An
//!   empty answer or NXDOMAIN would have nginx forget the upstream for 10 s.
//! - Who asks for an unknown upstream waits too: nginx keeps the endpoints it has, and has them at once when they come.
//! - What does not fit into a datagram goes over TCP, which costs one more question ([`wire`]).
//! - Answers are paced: a burst would overflow nginx's sockets while it still sends its own ([`sockets`]).
//!
//! Where endpoints come from lies in [`endpoints`](super::endpoints); which addresses nginx is told to ask is the
//! agent's business.

mod progress;
mod sockets;
mod table;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use self::progress::{Progress, Told};
use self::sockets::{Received, Reply, Sockets};
use self::table::Table;
use self::wire::{About, Question};
use super::endpoints::{Changed, Names, Source, Upstream, label_of};
use crate::volume::{Protocol, Volume};

/// How many answers are sent in a row, and the pause after them: 48 000 a second, which is less than a worker reads.
const BURST: usize = 48;
const PAUSE: Duration = Duration::from_millis(1);
/// How many questions are looked through for repeats at a time.
const BATCH: usize = 4096;
/// How long answers may gather before somebody is told that there are more: counting takes a while at 10 000 upstreams.
const SETTLE: Duration = Duration::from_millis(20);

/// The DNS server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    source: Source,
    responders: Responders,
}

/// Where the agent's own servers listen that answer every request with 503, one for each protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Responders {
    /// HTTP/1.1 in plain text.
    pub plain: SocketAddr,
    /// HTTP/1.1 over TLS.
    pub tls: SocketAddr,
    /// HTTP/2 in plain text, for gRPC.
    pub h2c: SocketAddr,
    /// HTTP/2 over TLS, for gRPC.
    pub h2_tls: SocketAddr,
}

/// The sockets for one start or reload of nginx. Keep it while a worker of that generation lives; dropping it ends
/// them, and then those workers keep the endpoints they have.
pub struct Client {
    addresses: Vec<SocketAddr>,
    ipv6: bool,
    shared: Arc<Shared>,
    /// Where everything that was read goes.
    questions: mpsc::UnboundedSender<Received>,
    /// Everything that reads and answers; ends with the client.
    tasks: JoinSet<()>,
}

/// What the answering tasks tell the client.
#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Notify,
}

impl Server {
    /// Loads the endpoints of the volume, keeps up with them, and looks up ExternalName Services as this machine does.
    pub async fn start(volume: &Volume, responders: Responders) -> anyhow::Result<Self> {
        Ok(Self::new(Source::start(volume, Names::system()).await?, responders))
    }

    /// Serves the endpoints of `source`.
    pub fn new(source: Source, responders: Responders) -> Self {
        Self { source, responders }
    }

    /// Binds fresh ports on a fresh loopback address, for one start or reload of nginx.
    pub async fn listen(&self) -> anyhow::Result<Client> {
        let sockets = Sockets::bind().await?;
        let addresses = sockets.addresses()?;
        let mut client = self.client(addresses);
        sockets.read(&client.questions, &mut client.tasks);
        Ok(client)
    }

    /// A client whose questions are answered, but which nobody reads from any socket yet.
    fn client(&self, addresses: Vec<SocketAddr>) -> Client {
        let shared = Arc::new(Shared::default());
        let ipv6 = self.has_ipv6();
        let mut tasks = JoinSet::new();
        let (answers, outgoing) = mpsc::unbounded_channel();
        let (questions, incoming) = mpsc::unbounded_channel();
        let (source, responders) = (self.source.clone(), self.responders);
        let answering = Answering { source, responders, ipv6, table: Table::new(), cut: BTreeMap::new(), answers };
        // Changes count from before the first question.
        tasks.spawn(answering.run(incoming, self.source.changes()));
        tasks.spawn(send(outgoing, shared.clone()));
        Client { addresses, ipv6, shared, questions, tasks }
    }

    /// Whether some upstream has an IPv6 endpoint. A client that was told `ipv6=off` is not given it, so if its
    /// [`Client::ipv6`] is false, nginx needs a reload with a new one.
    pub fn has_ipv6(&self) -> bool {
        self.source.has_ipv6()
    }
}

impl Client {
    /// Where nginx must ask.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether nginx must ask for IPv6 addresses as well, which costs a second question for each endpoint.
    pub fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// The arguments of nginx's directive `resolver`.
    pub fn resolver(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        format!("{}{}", addresses.join(" "), if self.ipv6 { "" } else { " ipv6=off" })
    }

    /// How many of these upstreams (by id) this client has had every answer for.
    pub fn answered(&self, upstreams: &[String]) -> usize {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.iter().filter(|id| progress.is_answered(label_of(id))).count()
    }

    /// Resolves when [`answered`](Self::answered) may have grown since this last resolved, but not more often than is
    /// worth looking. For one waiter at a time.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// The one task that answers the questions of a client.
struct Answering {
    source: Source,
    responders: Responders,
    ipv6: bool,
    table: Table<Waiting>,
    /// The versions of which only a part could be told, by label: this is said once.
    cut: BTreeMap<String, u64>,
    answers: mpsc::UnboundedSender<Outgoing>,
}

/// A question for endpoints that is held.
struct Waiting {
    question: Question,
    reply: Reply,
}

/// An answer on its way.
struct Outgoing {
    reply: Reply,
    bytes: Vec<u8>,
    told: Option<Told>,
}

impl Answering {
    async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Received>, mut changes: broadcast::Receiver<Changed>) {
        let mut batch = Vec::new();
        loop {
            let end = self.table.next_end();
            let ended = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = incoming.recv_many(&mut batch, BATCH) => match received {
                    0 => return,
                    _ => newest(batch.drain(..)).into_iter().for_each(|received| self.received(received)),
                },
                changed = changes.recv() => match changed {
                    Ok(ids) => ids.iter().for_each(|id| self.changed(label_of(id))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.table.held().iter().for_each(|label| self.changed(label));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = ended => self.ended(),
            }
        }
    }

    fn received(&mut self, (bytes, reply): (Vec<u8>, Reply)) {
        let question = match Question::read(&bytes) {
            Ok(question) => question,
            Err(error) => return debug!(%error, "what came over a DNS port is no question"),
        };
        match &question.about {
            About::Endpoints(label) => {
                let label = label.clone();
                let upstream = self.source.labelled(&label);
                let (id, version) = (question.id, upstream.as_ref().map(|u| u.version));
                let waiting = Waiting { question, reply };
                if let Some(waiting) = self.table.ask(&label, id, waiting, version, Instant::now())
                    && let Some(upstream) = upstream
                {
                    self.answer(waiting, &upstream);
                }
            }
            About::Address(endpoint) => {
                let told = Some(Told::Address(*endpoint));
                self.send(reply, question.address(*endpoint), told);
            }
            About::Other => self.send(reply, question.refused(), None),
        }
    }

    fn changed(&mut self, label: &str) {
        if let Some(upstream) = self.source.labelled(label)
            && let Some(held) = self.table.changed(label, upstream.version)
        {
            self.answer(held.reply, &upstream);
        }
    }

    fn ended(&mut self) {
        let version = |label: &str| self.source.labelled(label).map(|u| u.version);
        for (label, held) in self.table.ended(Instant::now(), version) {
            if let Some(upstream) = self.source.labelled(&label) {
                self.answer(held.reply, &upstream);
            }
        }
    }

    fn answer(&mut self, Waiting { question, reply }: Waiting, upstream: &Upstream) {
        let endpoints = self.endpoints(upstream);
        match question.endpoints(&endpoints, reply.transport()) {
            Ok(answer) => {
                let label = label_of(&upstream.id).to_owned();
                let told = answer.named.map(|named| {
                    let (id, of, version) = (&upstream.id, endpoints.len(), upstream.version);
                    if named < of && self.cut.insert(label.clone(), version) != Some(version) {
                        warn!(
                            upstream = id,
                            named, of, "it has more endpoints than nginx can be told; the first serve"
                        );
                    }
                    Told::Endpoints(label, endpoints[..named].into())
                });
                self.send(reply, Ok(answer.bytes), told);
            }
            Err(error) => self.send(reply, Err(error), None),
        }
    }

    /// What nginx shall use for this upstream: never nothing.
    fn endpoints(&self, upstream: &Upstream) -> Vec<SocketAddr> {
        let usable = upstream.addresses.iter().filter(|a| self.ipv6 || a.is_ipv4());
        let endpoints: Vec<_> = usable.copied().collect();
        if endpoints.is_empty() { vec![self.responders.of(upstream.protocol)] } else { endpoints }
    }

    fn send(&self, reply: Reply, bytes: anyhow::Result<Vec<u8>>, told: Option<Told>) {
        match bytes {
            // The sender ends together with this task.
            Ok(bytes) => drop(self.answers.send(Outgoing { reply, bytes, told })),
            // nginx keeps the endpoints it has and asks again.
            Err(error) => error!(%error, "a DNS answer could not be made"),
        }
    }
}

impl Responders {
    /// The one that answers in this protocol.
    pub fn of(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Http => self.plain,
            Protocol::Https => self.tls,
            Protocol::Grpc => self.h2c,
            Protocol::Grpcs => self.h2_tls,
        }
    }
}

/// The questions without those that are repeated later on: after a while without time to run (a stopped process, a CPU
/// quota) each may lie there many times, and nginx complains about every answer but the first.
fn newest(received: impl Iterator<Item = Received>) -> BTreeMap<Vec<u8>, Reply> {
    received.map(|Received { bytes, reply }| (bytes, reply)).collect()
}

/// Sends answers in their order, with a pause after each burst.
async fn send(mut outgoing: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>) {
    let mut burst = Vec::with_capacity(BURST);
    while outgoing.recv_many(&mut burst, BURST).await > 0 {
        let full = burst.len() == BURST;
        for Outgoing { reply, bytes, told } in burst.drain(..) {
            reply.send(bytes).await;
            if let Some(told) = told {
                shared.progress.lock().unwrap_or_else(PoisonError::into_inner).note(told);
            }
        }
        shared.changed.notify_one();
        if full {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    const RESPONDERS: Responders = {
        const fn local(port: u16) -> SocketAddr {
            SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
        }
        Responders { plain: local(1), tls: local(2), h2c: local(3), h2_tls: local(4) }
    };

    /// A client without sockets, and the volume behind it.
    struct Fixture {
        _folder: tempfile::TempDir,
        volume: Volume,
        server: Server,
        client: Client,
        written: AtomicU16,
    }

    /// Where answers to one question arrive.
    type Answers = mpsc::UnboundedReceiver<Vec<u8>>;

    impl Fixture {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let volume = Volume::new(folder.path());
            std::fs::create_dir_all(volume.endpoints()).unwrap();
            let server = Server::start(&volume, RESPONDERS).await.unwrap();
            let client = server.client(Vec::new());
            Self { _folder: folder, volume, server, client, written: AtomicU16::new(1) }
        }

        /// Writes endpoints and waits until the server knows of them, which is the work of a thread and takes real time.
        ///
        /// That thread tells its listeners one after the other, and the server may come after us: only when it tells of
        /// something else has it told everybody of this. Without that, the paused clock could run ahead of it.
        async fn write(&self, protocol: &str, endpoints: &[&str]) {
            let mut changes = self.server.source.changes();
            tokio::time::resume();
            self.put("ab-shop", protocol, endpoints);
            changes.recv().await.unwrap();
            self.put("cd-other", protocol, &[&format!("10.9.9.9:{}", self.written.fetch_add(1, Ordering::Relaxed))]);
            changes.recv().await.unwrap();
            tokio::time::pause();
        }

        fn put(&self, upstream: &str, protocol: &str, endpoints: &[&str]) {
            let set = serde_json::json!({ "protocol": protocol, "endpoints": { "addresses": endpoints } });
            let new = self.volume.endpoints().join(".new");
            std::fs::write(&new, set.to_string()).unwrap();
            std::fs::rename(new, self.volume.endpoint_set(upstream)).unwrap();
        }

        fn ask(&self, id: u16) -> Answers {
            let name = Name::from_ascii("_ep._tcp.ab.coxswain.internal.").unwrap();
            let mut message = Message::query();
            message.metadata.id = id;
            message.add_query(Query::query(name, RecordType::SRV));
            let (reply, answers) = mpsc::unbounded_channel();
            let received = Received { bytes: message.to_vec().unwrap(), reply: Reply::Tcp(reply) };
            self.client.questions.send(received).unwrap();
            answers
        }
    }

    /// How many endpoints the answer names, and how long it took to come, in seconds; `None` if none will come.
    async fn answer(answers: &mut Answers) -> Option<(usize, u64)> {
        let asked = Instant::now();
        let bytes = answers.recv().await?;
        Some((Message::from_vec(&bytes).unwrap().answers.len(), asked.elapsed().as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_at_once_or_when_its_answer_changes_or_after_a_while() {
        let fixture = Fixture::new().await;
        fixture.write("HTTP", &["10.0.0.1:80"]).await;
        assert_eq!(answer(&mut fixture.ask(0)).await, Some((1, 0)), "the first");
        assert_eq!(answer(&mut fixture.ask(0)).await, Some((1, 0)), "its repeat");
        assert_eq!(answer(&mut fixture.ask(1)).await, Some((1, 25)), "the next");

        let mut held = fixture.ask(2);
        let mut again = fixture.ask(2);
        fixture.write("HTTP", &["10.0.0.1:80", "10.0.0.2:80"]).await;
        assert_eq!(answer(&mut again).await, Some((2, 0)));
        assert_eq!(answer(&mut held).await, None, "only the repeat is answered");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_upstream_is_not_answered_until_it_comes() {
        let fixture = Fixture::new().await;
        let mut first = fixture.ask(0);
        assert_eq!(answer(&mut first).await, None, "dropped after a while");
        let mut repeat = fixture.ask(0);
        fixture.write("HTTP", &["10.0.0.1:80"]).await;
        assert_eq!(answer(&mut repeat).await, Some((1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_told_that_there_is_nothing() {
        let fixture = Fixture::new().await;
        for (protocol, responder) in [("HTTP", 1), ("HTTPS", 2), ("GRPC", 3), ("GRPCS", 4)] {
            fixture.write(protocol, &[]).await;
            let bytes = fixture.ask(0).recv().await.unwrap();
            let answer = Message::from_vec(&bytes).unwrap();
            assert!(answer.answers[0].to_string().contains(&format!("SRV 0 1 {responder} ")), "{protocol}: {answer}");
            fixture.write(protocol, &["10.0.0.1:80"]).await;
        }
    }

    #[test]
    fn of_what_was_repeated_meanwhile_only_the_newest_counts() {
        let received = |text: &str, answers: &mpsc::UnboundedSender<Vec<u8>>| Received {
            bytes: text.into(),
            reply: Reply::Tcp(answers.clone()),
        };
        let (old, _old) = mpsc::unbounded_channel();
        let (new, _new) = mpsc::unbounded_channel();
        let batch = [received("a", &old), received("b", &old), received("a", &new)];
        let newest: Vec<_> = newest(batch.into_iter()).into_iter().collect();
        let [(a, Reply::Tcp(to_a)), (b, Reply::Tcp(to_b))] = &newest[..] else { panic!("two questions") };
        assert!(a == b"a" && to_a.same_channel(&new));
        assert!(b == b"b" && to_b.same_channel(&old));
    }
}
