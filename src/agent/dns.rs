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
    /// Everything that reads and answers; dropped with the client.
    _tasks: JoinSet<()>,
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
        let shared = Arc::new(Shared::default());
        let ipv6 = self.has_ipv6();
        let mut tasks = JoinSet::new();
        let (answers, outgoing) = mpsc::unbounded_channel();
        let (queue, incoming) = mpsc::unbounded_channel();
        tasks.spawn(send(outgoing, shared.clone()));
        let answering =
            Answering { source: self.source.clone(), responders: self.responders, ipv6, table: Table::new(), answers };
        // Changes count from before the first question.
        tasks.spawn(answering.run(incoming, self.source.changes()));
        sockets.read(&queue, &mut tasks);
        Ok(Client { addresses, ipv6, shared, _tasks: tasks })
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

    /// Resolves when [`answered`](Self::answered) may have grown since this last resolved. For one waiter at a time.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

/// The one task that answers the questions of a client.
struct Answering {
    source: Source,
    responders: Responders,
    ipv6: bool,
    table: Table<Waiting>,
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
        loop {
            let end = self.table.next_end();
            let ended = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = incoming.recv() => match received {
                    Some(received) => self.received(received),
                    None => return,
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

    fn received(&mut self, Received { bytes, reply }: Received) {
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

    fn answer(&self, Waiting { question, reply }: Waiting, upstream: &Upstream) {
        let endpoints = self.endpoints(upstream);
        match question.endpoints(&endpoints, reply.transport()) {
            Ok(answer) => {
                let told = answer.named.map(|named| {
                    if named < endpoints.len() {
                        let (of, upstream) = (endpoints.len(), &upstream.id);
                        warn!(
                            upstream,
                            named, of, "it has more endpoints than nginx can be told; the first ones serve"
                        );
                    }
                    Told::Endpoints(label_of(&upstream.id).to_owned(), endpoints[..named].into())
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
