//! A client that sees the whole of an answer, and a resolver for the laptop.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an answer says, without order, TTLs and the serial of the zone, which is a time in CoreDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    code: ResponseCode,
    authoritative: bool,
    answers: BTreeSet<String>,
    authorities: BTreeSet<String>,
    additionals: BTreeSet<String>,
}

impl Said {
    fn of(message: &Message) -> Self {
        let all = |records: &[Record]| records.iter().map(shown).collect();
        Self {
            code: message.metadata.response_code,
            authoritative: message.metadata.authoritative,
            answers: all(&message.answers),
            authorities: all(&message.authorities),
            additionals: all(&message.additionals),
        }
    }

    /// Whether it is kdev's answer for a reverse name that nobody in the cluster has, beside that of
    /// CoreDNS: a pod may go between the list of questions and the question.
    pub(super) fn is_nobodys(&self, (name, _): &Question, coredns: &Self) -> bool {
        let nothing = [&self.answers, &self.authorities, &self.additionals];
        name.ends_with(".arpa")
            && self.code == ResponseCode::NXDomain
            && !coredns.has_answers()
            && !self.authoritative
            && nothing.iter().all(|records| records.is_empty())
    }

    /// Whether there are records of the question's answer.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }
}

fn shown(record: &Record) -> String {
    let data = match &record.data {
        RData::SOA(soa) => {
            let (server, admin) = (&soa.mname, &soa.rname);
            let timers = [soa.refresh, soa.retry, soa.expire];
            format!("{server} {admin} {timers:?} {}", soa.minimum)
        }
        data => data.to_string(),
    };
    let text = format!("{} {} {data}", record.name, record.record_type());
    text.to_ascii_lowercase()
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.code)?;
        if self.authoritative {
            f.write_str(" aa")?;
        }
        for (section, records) in [
            ("", &self.answers),
            ("authority ", &self.authorities),
            ("additional ", &self.additionals),
        ] {
            for record in records {
                write!(f, "; {section}{record}")?;
            }
        }
        Ok(())
    }
}

/// A question: a name, complete and without the final dot, and a type.
pub(super) type Question = (String, RecordType);

/// A connection to a server, which leaves nothing out of an answer.
pub(super) struct Server {
    address: SocketAddr,
    stream: TcpStream,
    id: u16,
}

impl Server {
    pub(super) fn connect(ip: &str) -> Self {
        let address = format!("{ip}:53").parse().unwrap();
        Self {
            address,
            stream: connect(address),
            id: 0,
        }
    }

    pub(super) fn ask(&mut self, question: &Question) -> Said {
        self.send(question);
        self.receive(question)
    }

    /// Sends a question, whose answer is the next one.
    pub(super) fn send(&mut self, (name, kind): &Question) {
        self.id = self.id.wrapping_add(1);
        let mut message = Message::query();
        message.metadata.id = self.id;
        message.metadata.recursion_desired = true;
        // Labels as they are: that of an IPv6 address may begin with a dash.
        let labels = name.split('.').map(str::as_bytes);
        message.add_query(Query::query(Name::from_labels(labels).unwrap(), *kind));
        // Whether it arrives shows in what comes back.
        let _ = send(&mut self.stream, &message.to_vec().unwrap());
    }

    pub(super) fn receive(&mut self, question: &Question) -> Said {
        let mut answer = receive(&mut self.stream);
        if answer.is_err() {
            // A server may close a connection that is idle, as this one is while the other thinks.
            self.stream = connect(self.address);
            self.send(question);
            answer = receive(&mut self.stream);
        }
        let answer = Message::from_vec(&answer.unwrap()).unwrap();
        assert_eq!(answer.metadata.id, self.id, "{question:?}");
        Said::of(&answer)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The laptop's resolver: it has one name, with an IPv4 address, and lives as long as the process.
pub(super) fn laptops_resolver(ip: &str) {
    let datagrams = UdpSocket::bind((ip, 53)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = datagrams.recv_from(&mut buffer) {
            if let Some(answer) = answered(&buffer[..length]) {
                // Whoever does not get it asks again.
                let _ = datagrams.send_to(&answer, peer);
            }
        }
    });
    let connections = TcpListener::bind((ip, 53)).unwrap();
    thread::spawn(move || {
        for mut stream in connections.incoming().flatten() {
            if let Ok(Some(answer)) = receive(&mut stream).map(|asked| answered(&asked)) {
                let _ = send(&mut stream, &answer);
            }
        }
    });
}

fn answered(asked: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(asked).ok()?;
    let query = asked.queries.first()?;
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&asked.queries);
    let name = query.name().to_ascii().to_ascii_lowercase();
    if !name.starts_with("wiki.corp.example") {
        answer.metadata.response_code = ResponseCode::NXDomain;
    } else if query.query_type() == RecordType::A {
        let address = RData::A("192.0.2.7".parse().unwrap());
        answer.answers = vec![Record::from_rdata(query.name().clone(), 60, address)];
    }
    answer.to_vec().ok()
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}
