//! Clients of every kind, well-behaved and without a pause: what they lose is lost.
//!
//! Well-behaved means what the standards let a client do by itself: a request that was never sent goes over another
//! connection, so does one that the server has refused unseen (RFC 9113, 8.7), and so does an idempotent one whose
//! connection, used before, ended without an answer (RFC 9112, 9.3.1). All three are counted apart. Everything else is a
//! failure that a person would see. Half of the clients send POST, for which there is no second try.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::support::wait::{check, eventually, lasting};
use crate::support::{Answer, Client, Connection, Lost, Request};

/// What a client does between two requests. Idle connections are the ones that a reload may cut.
const THINKING: Duration = Duration::from_millis(5);

/// Between two pieces of an upload, two messages of a WebSocket.
const PIECE: Duration = Duration::from_millis(50);

/// Lines of a download (the pod sends ten a second) and pieces of an upload: both take a second and outlive a reload.
const LINES: usize = 10;
const PIECES: usize = 20;

/// Requests at a time on one connection of HTTP/2.
const STREAMS: usize = 5;

/// Where the clients go.
#[derive(Clone)]
pub struct Site {
    /// Plain HTTP.
    pub near: SocketAddr,
    /// The same behind a long wire.
    pub far: SocketAddr,
    /// HTTPS.
    pub tls: SocketAddr,
    /// A host whose pods echo.
    pub work: String,
    /// A host that redirects to `http://…/N`, N being the generation that answers.
    pub generation: String,
}

/// A way of asking.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// HTTP/1.1, the connection kept.
    Kept,
    /// The same from far away.
    KeptFar,
    /// The same over TLS.
    KeptTls,
    /// HTTP/1.1, a connection for each request.
    Fresh,
    /// HTTP/2 over TLS, several streams.
    Http2,
    /// A long answer.
    Download,
    /// A long request.
    Upload,
    /// A WebSocket that is never closed.
    WebSocket,
}

/// How many clients of each kind there are.
const CLIENTS: [(Kind, usize); 8] = [
    (Kind::Kept, 6),
    (Kind::KeptFar, 16),
    (Kind::KeptTls, 4),
    (Kind::Fresh, 2),
    (Kind::Http2, 3),
    (Kind::Download, 2),
    (Kind::Upload, 2),
    (Kind::WebSocket, 6),
];

/// All clients.
pub struct Fleet {
    stop: Arc<AtomicBool>,
    members: Vec<(Kind, Arc<Progress>, JoinHandle<Tally>)>,
}

/// What one client has done so far.
#[derive(Default)]
struct Progress {
    asked: AtomicUsize,
    failed: AtomicUsize,
    /// The newest generation that has answered it.
    generation: AtomicUsize,
}

/// What became of the requests of one kind of client.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests; messages of a WebSocket.
    pub asked: usize,
    /// Requests that were not sent, because the connection had been closed; they went over another one.
    pub unsent: usize,
    /// Streams that the server refused unseen (GOAWAY); they went over another connection.
    pub refused: usize,
    /// Idempotent requests that were sent twice, because the connection ended without an answer.
    pub retried: usize,
    /// What a person would have seen.
    pub failures: Vec<String>,
    /// The generations that have answered.
    pub generations: BTreeSet<usize>,
}

/// What became of all.
pub struct Outcome(pub BTreeMap<Kind, Tally>);

impl Fleet {
    /// Starts all clients and waits until each has had an answer.
    pub async fn start(site: &Site) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut members = Vec::new();
        for (kind, count) in CLIENTS {
            for number in 0..count {
                let progress = Arc::new(Progress::default());
                let method = if number % 2 == 0 { "POST" } else { "GET" };
                let member = Member {
                    site: site.clone(),
                    method,
                    stop: Arc::clone(&stop),
                    progress: Arc::clone(&progress),
                    tally: Tally::default(),
                };
                members.push((kind, progress, tokio::spawn(member.work(kind))));
            }
        }
        let fleet = Self { stop, members };
        eventually("every client is at work", async || {
            let idle = fleet.members.iter().filter(|(_, progress, _)| progress.asked.load(Ordering::Relaxed) == 0);
            let idle: Vec<_> = idle.map(|(kind, ..)| kind).collect();
            check(idle.is_empty(), || format!("{idle:?} have done nothing"))
        })
        .await;
        fleet
    }

    /// Waits until every client that can see generations has seen this one or a later one.
    pub async fn sees(&self, generation: usize) {
        eventually(&format!("every client sees generation {generation}"), async || {
            let blind = [Kind::Download, Kind::Upload, Kind::WebSocket];
            let seeing = self.members.iter().filter(|(kind, ..)| !blind.contains(kind));
            let late: Vec<_> = seeing
                .map(|(kind, progress, _)| (kind, progress.generation.load(Ordering::Relaxed)))
                .filter(|(_, seen)| *seen < generation)
                .collect();
            check(late.is_empty(), || format!("{late:?}"))
        })
        .await;
    }

    /// How many requests have been lost so far.
    pub fn failed(&self) -> usize {
        self.members.iter().map(|(_, progress, _)| progress.failed.load(Ordering::Relaxed)).sum()
    }

    /// Lets every client finish and sums up.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut kinds: BTreeMap<Kind, Tally> = BTreeMap::new();
        for (kind, _, task) in self.members {
            kinds.entry(kind).or_default().add(task.await.expect("a client"));
        }
        Outcome(kinds)
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.unsent += other.unsent;
        self.refused += other.refused;
        self.retried += other.retried;
        self.failures.extend(other.failures);
        self.generations.extend(other.generations);
    }
}

impl Outcome {
    /// Everything that was lost.
    pub fn failures(&self) -> Vec<String> {
        let failures = |(kind, tally): (&Kind, &Tally)| {
            tally.failures.iter().map(|why| format!("{kind:?}: {why}")).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(failures).collect()
    }

    /// The generations that have answered somebody.
    pub fn generations(&self) -> BTreeSet<usize> {
        self.0.values().flat_map(|tally| &tally.generations).copied().collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:>8} {:>7} {:>7} {:>8} {:>8}", "", "asked", "failed", "unsent", "refused", "retried")?;
        for (kind, tally) in &self.0 {
            let Tally { asked, unsent, refused, retried, failures, generations: _ } = tally;
            let (kind, failed) = (format!("{kind:?}"), failures.len());
            writeln!(f, "{kind:<10} {asked:>8} {failed:>7} {unsent:>7} {refused:>8} {retried:>8}")?;
        }
        write!(f, "generations seen: {}", self.generations().len())
    }
}

/// One client.
struct Member {
    site: Site,
    method: &'static str,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    tally: Tally,
}

impl Member {
    async fn work(mut self, kind: Kind) -> Tally {
        let work = self.site.work.clone();
        let client = Client::new(self.site.near);
        match kind {
            Kind::Kept => self.ask_all(&client, true).await,
            Kind::KeptFar => self.ask_all(&Client::new(self.site.far), true).await,
            Kind::KeptTls => self.ask_all(&Client::new(self.site.tls).tls(&work), true).await,
            Kind::Fresh => self.ask_all(&client, false).await,
            Kind::Http2 => self.ask_in_streams(&Client::new(self.site.tls).tls(&work).http2()).await,
            Kind::Download => self.download(&client).await,
            Kind::Upload => self.upload().await,
            Kind::WebSocket => self.talk(&client).await,
        }
        self.tally
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn asked(&mut self) {
        self.tally.asked += 1;
        self.progress.asked.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&mut self, why: impl Into<String>) {
        self.tally.failures.push(why.into());
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// What is asked again and again.
    fn requests(&self) -> [Request; 2] {
        [&self.site.work, &self.site.generation].map(|host| Request::new(self.method, host, "/"))
    }

    /// HTTP/1.1, one request after the other.
    async fn ask_all(&mut self, client: &Client, kept: bool) {
        let requests = self.requests();
        let mut open = None;
        while self.goes_on() {
            for request in &requests {
                self.ask(client, &mut open, request).await;
                open = open.filter(|_| kept);
                lasting(THINKING).await;
            }
        }
    }

    /// One request, as often as it may be sent: a fresh connection is the last chance.
    async fn ask(&mut self, client: &Client, open: &mut Option<Connection>, request: &Request) {
        self.asked();
        loop {
            let (mut connection, used) = match open.take() {
                Some(connection) => (connection, true),
                None => match client.connect().await {
                    Ok(connection) => (connection, false),
                    Err(why) => return self.failed(why),
                },
            };
            match connection.ask(request).await {
                Ok(answer) => {
                    let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
                    *open = (!closes).then_some(connection);
                    return self.judge(&answer);
                }
                Err(Lost::Unsent) if used => self.tally.unsent += 1,
                Err(Lost::Unanswered(_)) if used && request.is_idempotent() => self.tally.retried += 1,
                Err(lost) => {
                    return self.failed(format!("{} on a connection used before: {used}: {lost:?}", self.method));
                }
            }
        }
    }

    /// Only two answers are right: a pod's, and the redirect that names the generation.
    fn judge(&mut self, answer: &Answer) {
        let generation = answer
            .headers
            .get("location")
            .and_then(|value| value.to_str().ok()?.rsplit_once('/')?.1.parse::<usize>().ok())
            .filter(|_| answer.status == 302);
        match generation {
            Some(generation) => {
                self.tally.generations.insert(generation);
                self.progress.generation.fetch_max(generation, Ordering::Relaxed);
            }
            None if answer.echo().is_ok() => {}
            None => self.failed(format!("{} {}", answer.status, answer.text())),
        }
    }

    /// HTTP/2, several streams at a time; all move to another connection when one is told to.
    async fn ask_in_streams(&mut self, client: &Client) {
        let requests = self.requests();
        while self.goes_on() {
            let connection = match client.connect().await {
                Ok(connection) => connection,
                Err(why) => {
                    self.asked();
                    self.failed(why);
                    continue;
                }
            };
            let streams = (0..STREAMS).filter_map(|_| connection.another_stream());
            let streams = streams.map(|stream| self.stream(stream, &requests));
            for tally in futures::future::join_all(streams).await {
                self.tally.add(tally);
            }
        }
    }

    /// One stream after the other, until the connection takes no more.
    async fn stream(&self, mut connection: Connection, requests: &[Request]) -> Tally {
        let mut own = Self {
            site: self.site.clone(),
            method: self.method,
            stop: Arc::clone(&self.stop),
            progress: Arc::clone(&self.progress),
            tally: Tally::default(),
        };
        while own.goes_on() {
            for request in requests {
                match connection.ask(request).await {
                    Ok(answer) => {
                        own.asked();
                        own.judge(&answer);
                    }
                    // It is asked again as the first of the next connection.
                    Err(Lost::Unsent) => {
                        own.tally.unsent += 1;
                        return own.tally;
                    }
                    Err(Lost::Refused) => {
                        own.tally.refused += 1;
                        return own.tally;
                    }
                    Err(lost) => {
                        own.asked();
                        own.failed(format!("{lost:?}"));
                        return own.tally;
                    }
                }
                lasting(THINKING).await;
            }
        }
        own.tally
    }

    async fn download(&mut self, client: &Client) {
        let request = Request::get(&self.site.work, &format!("/?stream={LINES}"));
        while self.goes_on() {
            self.asked();
            match client.try_send(&request).await.map(|answer| answer.text().lines().count()) {
                Ok(LINES) => {}
                Ok(lines) => self.failed(format!("{lines} lines of {LINES}")),
                Err(why) => self.failed(why),
            }
        }
    }

    async fn upload(&mut self) {
        while self.goes_on() {
            self.asked();
            match self.upload_once().await {
                Ok(answer)
                    if answer.starts_with("HTTP/1.1 200")
                        && answer.contains(&format!("\"body\":{}", PIECES * 1000)) => {}
                Ok(answer) => self.failed(format!("an upload was answered {answer:?}")),
                Err(error) => self.failed(error.to_string()),
            }
        }
    }

    async fn upload_once(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.site.near).await?;
        let (host, length) = (&self.site.work, PIECES * 1000);
        let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..PIECES {
            stream.write_all(&[b'x'; 1000]).await?;
            lasting(PIECE).await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn talk(&mut self, client: &Client) {
        let mut socket = match client.websocket(&self.site.work, "/ws").await {
            Ok(socket) => socket,
            Err(why) => return self.failed(why),
        };
        while self.goes_on() {
            self.asked();
            let said = format!("{}", self.tally.asked);
            if let Err(error) = socket.send(Message::text(said.clone())).await {
                return self.failed(format!("a WebSocket after {said} messages: {error}"));
            }
            match socket.next().await {
                Some(Ok(message)) if message.to_text().is_ok_and(|text| text.ends_with(&said)) => {}
                other => return self.failed(format!("a WebSocket after {said} messages: {other:?}")),
            }
            lasting(PIECE).await;
        }
    }
}
