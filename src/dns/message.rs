//! Questions as they come off the wire, and answers as they go onto it.

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder,
};

/// Largest answer over UDP, whatever the client says it takes (DNS Flag Day 2020: more may be
/// fragmented and lost). The rest goes over TCP.
pub(super) const MAX_UDP: usize = 1232;
/// Largest answer over UDP to a client that does not say (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;
/// Largest message over TCP (RFC 1035, 4.2.2).
pub(super) const MAX_TCP: usize = u16::MAX as usize;
/// Bytes of a message's header, before its question (RFC 1035, 4.1.1).
pub(super) const HEADER: usize = 12;
/// Type and class after the question's name.
const TYPE_AND_CLASS: usize = 4;

/// Bytes of the shortest record with an address: a pointer to the name, and ten bytes before the
/// data (RFC 1035, 4.1.3).
const SHORTEST_RECORD: usize = 2 + 10 + 4;

/// How a message came, and so how it goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question of ours about one name.
pub(super) fn query(name: &Name, kind: RecordType) -> Result<Vec<u8>, ProtoError> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    question.to_vec()
}

/// A well-formed question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) meta: Metadata,
    pub(super) query: Query,
    /// Where the question section ends in the message.
    pub(super) end: usize,
    counts: [u16; 3],
}

/// What came.
#[derive(Debug)]
pub(super) enum Incoming {
    Question(Question),
    /// Something that is answered with an error.
    Wrong(Question, ResponseCode),
    /// Something that must not be answered: too short, or an answer itself.
    Noise,
}

impl Incoming {
    /// Reads a message. Only its header and its question are looked at: the rest is the
    /// upstream resolver's where the question is.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut decoder = BinDecoder::new(bytes);
        let Ok(header) = Header::read(&mut decoder) else {
            return Self::Noise;
        };
        if header.metadata.message_type == MessageType::Response {
            return Self::Noise;
        }
        let counts = &header.counts;
        let mut question = Question {
            meta: header.metadata,
            query: Query::new(),
            end: HEADER,
            counts: [counts.answers, counts.authorities, counts.additionals],
        };
        let wrong = |question, code| Self::Wrong(question, code);
        if header.metadata.op_code != OpCode::Query {
            return wrong(question, ResponseCode::NotImp);
        }
        if counts.queries != 1 {
            return wrong(question, ResponseCode::FormErr);
        }
        match Query::read(&mut decoder) {
            Ok(query) => {
                question.query = query;
                question.end = decoder.index();
                Self::Question(question)
            }
            Err(_) => wrong(question, ResponseCode::FormErr),
        }
    }
}

impl Question {
    /// The same question about another name.
    pub(super) fn about(&self, name: Name) -> Self {
        let mut other = self.clone();
        other.query.set_name(name);
        other
    }

    pub(super) fn name(&self) -> &Name {
        self.query.name()
    }

    pub(super) fn kind(&self) -> RecordType {
        self.query.query_type()
    }

    pub(super) fn class(&self) -> DNSClass {
        self.query.query_class()
    }

    /// What the client says of itself, read from the message that the question came in.
    pub(super) fn edns(&self, bytes: &[u8]) -> Result<Option<Edns>, ResponseCode> {
        let [answers, authorities, additionals] = self.counts.map(usize::from);
        if additionals == 0 && answers == 0 && authorities == 0 {
            return Ok(None);
        }
        let rest = bytes.get(self.end..).unwrap_or_default();
        // Names in it may point back into the message, so it is read as a whole.
        let mut decoder = BinDecoder::new(bytes);
        if decoder.read_slice(bytes.len() - rest.len()).is_err() {
            return Err(ResponseCode::FormErr);
        }
        let mut read = |count, last| {
            Message::read_records(&mut decoder, count, last, OpCode::Query)
                .map_err(|_| ResponseCode::FormErr)
        };
        read(answers, false)?;
        read(authorities, false)?;
        let (_, edns, _) = read(additionals, true)?;
        match &edns {
            Some(edns) if edns.version() > 0 => Err(ResponseCode::BADVERS),
            _ => Ok(edns),
        }
    }
}

/// An answer in the making.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Reply {
    /// An answer without records.
    pub(super) fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    /// As [`Reply::empty`], from who knows.
    pub(super) fn authoritative(code: ResponseCode) -> Self {
        Self {
            authoritative: true,
            ..Self::empty(code)
        }
    }

    /// Writes the answer to `question`, which came in `request`, into `out`.
    ///
    /// What does not fit is left out: the additional records silently, as nobody asked for them
    /// (RFC 2181, 9), answers with the mark that there are more.
    pub(super) fn write(
        mut self,
        question: &Question,
        request: &[u8],
        transport: Transport,
        out: &mut Vec<u8>,
    ) {
        let edns = match question.edns(request) {
            Ok(edns) => edns,
            Err(code) => {
                self = Self::empty(code);
                (code == ResponseCode::BADVERS).then(Edns::new)
            }
        };
        let limit = match (transport, &edns) {
            (Transport::Tcp, _) => MAX_TCP,
            (Transport::Udp, None) => PLAIN_UDP,
            (Transport::Udp, Some(edns)) => {
                usize::from(edns.max_payload()).clamp(PLAIN_UDP, MAX_UDP)
            }
        };
        let mut meta = Metadata::response_from_request(&question.meta);
        meta.authoritative = self.authoritative;
        meta.recursion_available = true;
        meta.authentic_data = false;
        meta.response_code = self.code;
        let mut message = Message::new(0, MessageType::Response, question.meta.op_code);
        message.metadata = meta;
        // A message whose question could not be read has none to repeat.
        if question.end > HEADER {
            message.queries.push(question.query.clone());
        }
        message.answers = self.answers;
        message.authorities = self.authorities;
        message.additionals = self.additionals;
        message.edns = edns.map(|asked| {
            let mut own = Edns::new();
            own.set_max_payload(MAX_UDP as u16);
            own.set_dnssec_ok(asked.flags().dnssec_ok);
            own
        });
        fit(&mut message, limit, out);
    }
}

/// Writes as much of `message` as fits into `limit`.
fn fit(message: &mut Message, limit: usize, out: &mut Vec<u8>) {
    loop {
        out.clear();
        let written = message.emit(&mut BinEncoder::new(out)).is_ok();
        // The encoder stops, and marks the message, at 64 KiB.
        let whole = written && (message.metadata.truncation || !is_truncated(out));
        if whole && out.len() <= limit {
            return;
        }
        if !message.additionals.is_empty() {
            message.additionals.clear();
        } else if !message.answers.is_empty() {
            // Records of one answer are alike, so their share tells about how many fit.
            let count = message.answers.len();
            let fitting = count * limit / out.len().max(limit + 1);
            // The more names, the fewer the encoder compresses, so begin with what may just fit.
            let most = limit / SHORTEST_RECORD;
            let fitting = if count > most { most } else { fitting };
            message.answers.truncate(fitting.min(count - 1));
            message.metadata.truncation = true;
        } else if !message.authorities.is_empty() {
            message.authorities.clear();
        } else {
            return;
        }
    }
}

/// The mark that a message holds less than there is (RFC 1035, 4.1.1).
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// Whether another resolver may know better: SERVFAIL, NOTIMP, REFUSED (RFC 1035, 4.1.1).
pub(super) fn is_failure(message: &[u8]) -> bool {
    message
        .get(3)
        .is_some_and(|flags| matches!(flags & 0x0f, 2 | 4 | 5))
}

/// Whether `answer` is one to `request`, whose question section ends at `end`: the same question,
/// case aside, since some resolvers change it.
pub(super) fn answers(answer: &[u8], request: &[u8], end: usize) -> bool {
    let (Some(head), Some(asked)) = (answer.get(..HEADER), request.get(HEADER..end)) else {
        return false;
    };
    let is_answer = head[2] & 0x80 != 0;
    let same_kind = (head[2] ^ request[2]) & 0x78 == 0;
    if !is_answer || !same_kind || head[..2] != request[..2] {
        return false;
    }
    // Some servers that fail or refuse say nothing else.
    if head[4..6] == [0, 0] {
        return is_failure(answer) && answer.len() == HEADER;
    }
    let Some(said) = answer.get(HEADER..end) else {
        return false;
    };
    let names = asked.len().saturating_sub(TYPE_AND_CLASS);
    head[4..6] == [0, 1]
        && said[..names].eq_ignore_ascii_case(&asked[..names])
        && said[names..] == asked[names..]
}
