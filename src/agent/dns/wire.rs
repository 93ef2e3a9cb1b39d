//! The bytes: which questions there are, and what their answers look like.
//!
//! `_ep._tcp.<label>.coxswain.internal SRV` are the endpoints of the upstream of that label. Each is named
//! `<address and port>.e`, whose A or AAAA record is the address: a name for ever, so it may be cached for a day. nginx
//! tells peers apart by this name, and hashes it, so it holds the port too; it is short (base 32), so that 2 000
//! endpoints fit into one answer of 64 KiB.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail, ensure};
use data_encoding::BASE32_DNSSEC;
use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts};
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// The domain of the names that the proxy's configuration holds.
const DOMAIN: &str = "coxswain.internal";
/// What stands before the label of an upstream.
const SERVICE: &str = "_ep._tcp.";
/// The domain of the names of endpoints.
const ENDPOINT_DOMAIN: &str = "e";
/// nginx asks for endpoints again a second after an answer that must not be cached; anything more delays changes.
const SRV_TTL: u32 = 0;
/// The name of an endpoint can only ever mean this endpoint.
const ADDRESS_TTL: u32 = 86_400;
/// What nginx reads over UDP.
const UDP_SIZE: usize = 4096;
/// A compressed name that points to the name of the question, which follows the header of 12 bytes.
const NAME_OF_QUESTION: u16 = 0xc00c;

/// A question, as far as it could be understood.
pub(super) struct Question {
    /// The id by which the client knows the answer.
    pub(super) id: u16,
    /// What is asked for.
    pub(super) about: About,
    metadata: Metadata,
    query: Query,
}

/// What a question asks for.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum About {
    /// The endpoints of the upstream with this label.
    Endpoints(String),
    /// The address of this endpoint.
    Address(SocketAddr),
    /// Something that is not served here.
    Other,
}

/// Over what an answer travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The bytes of an answer that names endpoints.
pub(super) struct Endpoints {
    pub(super) bytes: Vec<u8>,
    /// How many of the endpoints it names; `None` if it only says that the client must ask over TCP.
    pub(super) named: Option<usize>,
}

impl Question {
    /// Reads one question.
    pub(super) fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let message = Message::from_vec(bytes).context("not a DNS message")?;
        let metadata = message.metadata;
        ensure!(metadata.message_type == MessageType::Query, "not a question");
        ensure!(metadata.op_code == OpCode::Query, "not a query");
        let mut queries = message.queries;
        let (Some(query), true) = (queries.pop(), queries.is_empty()) else { bail!("not one question") };
        Ok(Self { id: metadata.id, about: about(&query), metadata, query })
    }

    /// The answer that names these endpoints, in this order.
    pub(super) fn endpoints(&self, endpoints: &[SocketAddr], transport: Transport) -> anyhow::Result<Endpoints> {
        let mut metadata = self.answer();
        let mut buffer = Vec::new();
        let mut records: Vec<_> = endpoints.iter().map(|&e| Endpoint(e)).collect();
        let (mut bytes, mut named) = (emit(metadata, &self.query, &records, &mut buffer)?, records.len());
        if bytes.truncated {
            // What nginx would refuse over TCP is an answer that says it is cut off, so it is cut off without a word.
            records.truncate(bytes.answers);
            named = bytes.answers;
            bytes = emit(metadata, &self.query, &records, &mut buffer)?;
        }
        if transport == Transport::Udp && bytes.length > UDP_SIZE {
            metadata.truncation = true;
            emit(metadata, &self.query, &[], &mut buffer)?;
            return Ok(Endpoints { bytes: buffer, named: None });
        }
        Ok(Endpoints { bytes: buffer, named: Some(named) })
    }

    /// The answer that is the address of `endpoint`: empty if the question was for the other family.
    pub(super) fn address(&self, endpoint: SocketAddr) -> anyhow::Result<Vec<u8>> {
        let data = match (endpoint.ip(), self.query.query_type()) {
            (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(ip))),
            (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(ip))),
            _ => None,
        };
        let record = data.map(|data| Record::from_rdata(self.query.name().clone(), ADDRESS_TTL, data));
        self.message(ResponseCode::NoError, record)
    }

    /// The answer to what is not served here.
    pub(super) fn refused(&self) -> anyhow::Result<Vec<u8>> {
        self.message(ResponseCode::Refused, None)
    }

    fn message(&self, code: ResponseCode, answer: Option<Record>) -> anyhow::Result<Vec<u8>> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata = self.answer();
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        message.add_answers(answer);
        message.to_vec().context("encoding a DNS answer")
    }

    fn answer(&self) -> Metadata {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.authoritative = true;
        // nginx takes no answer with this bit.
        metadata.checking_disabled = false;
        metadata
    }
}

fn about(query: &Query) -> About {
    if query.query_class() != DNSClass::IN {
        return About::Other;
    }
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match query.query_type() {
        RecordType::SRV => label(name).map_or(About::Other, |label| About::Endpoints(label.to_owned())),
        RecordType::A | RecordType::AAAA => endpoint(name).map_or(About::Other, About::Address),
        _ => About::Other,
    }
}

/// The label of the upstream that a name is about.
fn label(name: &str) -> Option<&str> {
    let label = name.strip_prefix(SERVICE)?.strip_suffix(DOMAIN)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then_some(label)
}

/// The endpoint that a name is about.
fn endpoint(name: &str) -> Option<SocketAddr> {
    let text = name.strip_suffix(ENDPOINT_DOMAIN)?.strip_suffix('.')?;
    let bytes = BASE32_DNSSEC.decode(text.as_bytes()).ok()?;
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// The name of an endpoint.
fn name_of(endpoint: SocketAddr) -> Result<Name, ProtoError> {
    let mut bytes = match endpoint.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(endpoint.port().to_be_bytes());
    Name::from_ascii(format!("{}.{ENDPOINT_DOMAIN}.", BASE32_DNSSEC.encode(&bytes)))
}

/// One SRV record. hickory stops compressing names after 120 of them, and then 700 endpoints would fill an answer, so
/// the owner's name, which is that of the question, is written here.
struct Endpoint(SocketAddr);

impl BinEncodable for Endpoint {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        encoder.emit_u16(NAME_OF_QUESTION)?;
        RecordType::SRV.emit(encoder)?;
        DNSClass::IN.emit(encoder)?;
        encoder.emit_u32(SRV_TTL)?;
        let length = encoder.place::<u16>()?;
        SRV::new(0, 1, self.0.port(), name_of(self.0)?).emit(encoder)?;
        let bytes = encoder.len_since_place(&length) as u16;
        length.replace(encoder, bytes)
    }
}

/// What came of encoding an answer.
struct Emitted {
    length: usize,
    answers: usize,
    truncated: bool,
}

fn emit(metadata: Metadata, query: &Query, answers: &[Endpoint], into: &mut Vec<u8>) -> anyhow::Result<Emitted> {
    into.clear();
    let mut encoder = BinEncoder::new(into);
    let (mut query, mut answers) = (std::iter::once(query), answers.iter());
    let (mut authorities, mut additionals) = (std::iter::empty::<&Record>(), std::iter::empty::<&Record>());
    let header = emit_message_parts(
        &metadata,
        &mut query,
        &mut answers,
        &mut authorities,
        &mut additionals,
        None,
        None,
        &mut encoder,
    )
    .context("encoding a DNS answer")?;
    let (answers, truncated) = (header.counts.answers.into(), header.metadata.truncation);
    Ok(Emitted { length: into.len(), answers, truncated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: RecordType) -> Question {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        Question::read(&message.to_vec().unwrap()).unwrap()
    }

    fn srv() -> Question {
        question("_ep._tcp.0123456789abcdef0123456789abcde.coxswain.internal.", RecordType::SRV)
    }

    fn many(count: usize) -> Vec<SocketAddr> {
        (0..count).map(|n| SocketAddr::from(([10, 255, (n / 256) as u8, (n % 256) as u8], 65_535))).collect()
    }

    /// The endpoints that an answer leads to, asking for the address of each name.
    fn resolved(bytes: &[u8]) -> Vec<SocketAddr> {
        let address = |record: &Record| {
            let RData::SRV(srv) = &record.data else { panic!("{record} is no SRV record") };
            let kind = if srv.target.to_ascii().len() > 20 { RecordType::AAAA } else { RecordType::A };
            let question = question(&srv.target.to_ascii(), kind);
            let About::Address(endpoint) = question.about else { panic!("{} is no endpoint", srv.target) };
            let answer = Message::from_vec(&question.address(endpoint).unwrap()).unwrap();
            assert_eq!(answer.answers[0].ttl, 86_400);
            let ip = match answer.answers[0].data {
                RData::A(a) => IpAddr::from(a.0),
                RData::AAAA(a) => IpAddr::from(a.0),
                _ => panic!("no address"),
            };
            SocketAddr::new(ip, srv.port)
        };
        Message::from_vec(bytes).unwrap().answers.iter().map(address).collect()
    }

    #[test]
    fn questions_are_understood_whatever_their_case() {
        let about = |name, kind| question(name, kind).about;
        assert_eq!(about("_ep._tcp.AB.Coxswain.Internal.", RecordType::SRV), About::Endpoints("ab".into()));
        for (name, kind) in [
            ("_ep._tcp.ab.coxswain.internal.", RecordType::A),
            ("_ep._tcp.coxswain.internal.", RecordType::SRV),
            ("_ep._tcp.a.b.coxswain.internal.", RecordType::SRV),
            ("_ep._tcp.ab.example.com.", RecordType::SRV),
            ("ab.coxswain.internal.", RecordType::SRV),
            ("e.", RecordType::A),
            ("zz.e.", RecordType::A),
            ("localhost.", RecordType::A),
            (".", RecordType::SRV),
        ] {
            assert_eq!(about(name, kind), About::Other, "{name} {kind}");
        }
        assert!(Question::read(b"garbage").is_err());
        assert!(Question::read(&srv().refused().unwrap()).is_err(), "an answer is no question");
    }

    #[test]
    fn endpoints_are_named_for_ever_and_lead_back_to_their_address() {
        let endpoints: Vec<SocketAddr> =
            ["10.0.0.1:8080", "10.0.0.1:8081", "[fd00::1]:8080", "0.0.0.0:0", "255.255.255.255:65535"]
                .map(|e| e.parse().unwrap())
                .into();
        let answer = srv().endpoints(&endpoints, Transport::Udp).unwrap();
        assert_eq!(answer.named, Some(5));
        assert_eq!(resolved(&answer.bytes), endpoints);
        let message = Message::from_vec(&answer.bytes).unwrap();
        assert_eq!(message.answers[0].to_string(), format!("{} 0 IN SRV 0 1 8080 1800008vi0.e.", srv().query.name()));
        // nginx takes nothing else: response, standard query, no error, none of the reserved bits.
        assert_eq!(u16::from_be_bytes([answer.bytes[2], answer.bytes[3]]) & 0xfa7f, 0x8000);
    }

    #[test]
    fn the_other_family_is_empty_and_not_an_error() {
        let question = question("1800008vi0.e.", RecordType::AAAA);
        let About::Address(endpoint) = question.about else { panic!("no endpoint") };
        let answer = Message::from_vec(&question.address(endpoint).unwrap()).unwrap();
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    }

    #[test]
    fn what_does_not_fit_into_a_datagram_is_sent_over_tcp() {
        let most = (1..).find(|&n| srv().endpoints(&many(n), Transport::Udp).unwrap().named.is_none()).unwrap() - 1;
        assert!(most >= 100, "{most}");
        assert!(srv().endpoints(&many(most), Transport::Udp).unwrap().bytes.len() <= UDP_SIZE);
        let cut = Message::from_vec(&srv().endpoints(&many(most + 1), Transport::Udp).unwrap().bytes).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.queries.len() == 1);
        let whole = srv().endpoints(&many(2_000), Transport::Tcp).unwrap();
        assert_eq!(whole.named, Some(2_000));
        assert_eq!(resolved(&whole.bytes), many(2_000));
    }

    #[test]
    fn what_does_not_even_fit_into_tcp_is_the_first_that_do() {
        let answer = srv().endpoints(&many(3_000), Transport::Tcp).unwrap();
        let named = answer.named.unwrap();
        assert!((2_000..3_000).contains(&named), "{named}");
        assert!(!Message::from_vec(&answer.bytes).unwrap().metadata.truncation);
        assert_eq!(resolved(&answer.bytes), many(named));
    }
}
