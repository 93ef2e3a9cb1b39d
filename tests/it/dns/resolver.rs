//! A small real DNS server, as the cluster's would be, whose answers a test decides.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use coxswain::agent::endpoints::Names;
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use tokio::net::UdpSocket;

/// The server; what it answers can be changed at any time.
#[derive(Clone)]
pub struct Resolver {
    address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it says about a name.
#[derive(Clone, Debug)]
pub enum Answer {
    Addresses(Vec<IpAddr>, u32),
    ServFail,
    /// Nothing at all.
    Silence,
}

impl Resolver {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let this = Self { address, answers: Arc::default(), asked: Arc::default() };
        let server = this.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = server.answer(&buffer[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        this
    }

    /// What is said about a name (absolute) from now on. All others do not exist.
    pub fn set(&self, name: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(name.to_owned(), answer);
    }

    pub fn remove(&self, name: &str) {
        self.answers.lock().unwrap().remove(name);
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }

    /// What looks names up here, with this search list.
    pub fn names(&self, search: &[&str], ndots: usize) -> Names {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![connection]);
        let search = search.iter().map(|s| Name::from_ascii(s).unwrap()).collect();
        let mut options = ResolverOpts::default();
        options.ndots = ndots;
        options.attempts = 1;
        options.timeout = std::time::Duration::from_millis(500);
        Names::new(ResolverConfig::from_parts(None, search, vec![server]), options).unwrap()
    }

    fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(bytes).unwrap();
        let query = question.queries[0].clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        self.asked.lock().unwrap().push(name.clone());
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        match self.answers.lock().unwrap().get(&name) {
            Some(Answer::Addresses(addresses, ttl)) => {
                for ip in addresses {
                    let (kind, data) = match *ip {
                        IpAddr::V4(ip) => (RecordType::A, RData::A(A(ip))),
                        IpAddr::V6(ip) => (RecordType::AAAA, RData::AAAA(AAAA(ip))),
                    };
                    if kind == query.query_type() {
                        answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, data));
                    }
                }
            }
            Some(Answer::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
            Some(Answer::Silence) => return None,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        Some(answer.to_vec().unwrap())
    }
}
