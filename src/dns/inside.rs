//! Questions that only the cluster's DNS may be asked: they go through the relay to the
//! nameservers of its pod, byte for byte but for the id, and nowhere else.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::message::{self, Transport};
use super::name::lower;
use crate::addr::{Host, Target};
use crate::dial::{
    Answer, Answered, DialError, DialRelay, Flow, NAMESERVERS, NEEDS_RELAY, NoRelay, Room, Routes,
    Side,
};

/// The port of nameservers.
const PORT: u16 = 53;
/// Longest wait for an answer to a datagram, before it is sent again: more than a pod's resolver
/// has for one that loses nothing on its way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a question is sent by datagram. The client behind asks again, or gives up, after 5 s.
const ATTEMPTS: usize = 2;
/// Longest wait for an answer by connection.
const TCP_PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of the answers that fit no frame of Ethernet.
const LARGE: usize = 1 << 17;

/// The way to the cluster's DNS, and which names take it.
#[derive(Debug)]
pub struct Inside<T = NoRelay> {
    routes: Routes,
    relay: Option<T>,
    answered: Answered,
    told: AtomicBool,
    /// Whether what programs dial afterwards is an address alone, so that all rules about names have
    /// to be followed here.
    decides: bool,
}

impl Inside {
    /// No name takes it.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Routes::default(), None, Answered::default())
    }
}

impl<T: DialRelay> Inside<T> {
    /// The names that `routes` say, through `relay`; the addresses are noted in `answered`.
    #[must_use]
    pub fn new(routes: Routes, relay: Option<T>, answered: Answered) -> Self {
        Self {
            routes,
            relay,
            answered,
            told: AtomicBool::new(false),
            decides: false,
        }
    }

    /// The same for programs that then dial an address: every rule about a name counts, and not
    /// only those about whom to ask.
    #[must_use]
    pub fn deciding(self) -> Self {
        let decides = self.routes.iter().next().is_some();
        Self { decides, ..self }
    }

    /// Whether there are rules that may keep a name from the cluster.
    pub(super) fn decides(&self) -> bool {
        self.decides
    }

    /// Whether `name` is not the cluster's, whatever the cluster has.
    pub(super) fn leaves(&self, name: &str) -> bool {
        self.routes.side(name) == Some(Side::Laptop)
    }

    /// Whether `name` may be asked about nowhere else.
    pub(super) fn takes(&self, name: &Name) -> bool {
        match self.routes.side(&lower(name)) {
            Some(Side::Inside) => true,
            Some(Side::Cluster) => self.decides,
            Some(Side::Laptop) | None => false,
        }
    }

    /// The answer to `request`, whose question section ends at `end`. What came over TCP goes
    /// over TCP.
    pub(super) async fn relay(
        &self,
        request: &[u8],
        end: usize,
        transport: Transport,
    ) -> Result<Vec<u8>, DialError> {
        let target = Target::new(Host::Name(NAMESERVERS.to_owned()), PORT);
        let question = Renumbered::new(request, end);
        let result = match self.usable(&target) {
            Ok(relay) => match transport {
                Transport::Udp => by_datagram(relay, &target, &question).await,
                Transport::Tcp => by_connection(relay, &target, &question).await,
            },
            Err(error) => Err(error),
        };
        match &result {
            Ok(answer) => self.note(answer),
            Err(error) if !self.told.swap(true, Ordering::Relaxed) => {
                tracing::warn!("names of --resolve-in-cluster get no answer: {error}");
            }
            Err(_) => {}
        }
        result
    }

    /// As [`Inside::relay`], for the records of one name.
    pub(super) async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Message, String> {
        let request = message::query(name, kind).map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        for transport in [Transport::Udp, Transport::Tcp] {
            let asked = self.relay(&request, request.len(), transport).await;
            answer = asked.map_err(|e| e.to_string())?;
            if !message::is_truncated(&answer) {
                break;
            }
        }
        Message::from_vec(&answer).map_err(|e| e.to_string())
    }

    fn usable(&self, target: &Target) -> Result<&T, DialError> {
        let Some(relay) = &self.relay else {
            return Err(DialError::Unreachable {
                target: target.to_string(),
                reason: "only a pod reaches the cluster's DNS".to_owned(),
                fix: NEEDS_RELAY.to_owned(),
            });
        };
        relay.hopeless().map_or(Ok(relay), Err)
    }

    /// Keeps in mind whose the addresses of an answer are.
    fn note(&self, answer: &[u8]) {
        let Ok(message) = Message::from_vec(answer) else {
            return;
        };
        for record in &message.answers {
            if let Some(ip) = record.data.ip_addr() {
                self.answered.note(ip);
            }
        }
    }
}

fn timed_out(target: &Target, after: Duration) -> DialError {
    DialError::TimedOut {
        target: target.to_string(),
        after,
    }
}

fn broken(target: &Target, error: &io::Error) -> DialError {
    DialError::from_io(error)
        .cloned()
        .unwrap_or_else(|| DialError::Unreachable {
            target: target.to_string(),
            reason: error.to_string(),
            fix: String::new(),
        })
}

/// A request under an id of ours, which nobody can guess.
struct Renumbered<'a> {
    request: &'a [u8],
    /// Where its question section ends.
    end: usize,
    sent: Vec<u8>,
}

impl<'a> Renumbered<'a> {
    fn new(request: &'a [u8], end: usize) -> Self {
        let mut sent = request.to_vec();
        sent[..2].copy_from_slice(&rand::random::<[u8; 2]>());
        Self { request, end, sent }
    }

    /// What was heard, under the id of the request, if it answers that.
    fn answer(&self, heard: &[u8]) -> Option<Vec<u8>> {
        message::answers(heard, &self.sent, self.end)
            .then(|| [&self.request[..2], &heard[2..]].concat())
    }
}

async fn by_datagram<T: DialRelay>(
    relay: &T,
    target: &Target,
    question: &Renumbered<'_>,
) -> Result<Vec<u8>, DialError> {
    let asking = async {
        let stream = relay.dial_relay_udp(target).await?;
        let (mut to, mut from) = Flow::capsules(stream, Room::new(LARGE)).split();
        let mut answer = BytesMut::new();
        for _ in 0..ATTEMPTS {
            to.send(&question.sent)
                .await
                .map_err(|e| broken(target, &e))?;
            let hearing = async {
                loop {
                    answer.clear();
                    if !from.receive(&mut answer).await? {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    if let Some(answer) = question.answer(&answer) {
                        return Ok(answer);
                    }
                }
            };
            if let Ok(heard) = timeout(PATIENCE, hearing).await {
                return heard.map_err(|e| broken(target, &e));
            }
        }
        Err(timed_out(target, PATIENCE))
    };
    // The relay itself may be waited for, in place of the nameserver.
    let limit = PATIENCE * 2;
    timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(timed_out(target, limit)))
}

async fn by_connection<T: DialRelay>(
    relay: &T,
    target: &Target,
    question: &Renumbered<'_>,
) -> Result<Vec<u8>, DialError> {
    let asking = async {
        let mut stream = relay.dial_relay(target, Answer::AtOnce).await?;
        let talking = async {
            let length = u16::try_from(question.sent.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &question.sent].concat();
            stream.write_all(&framed).await?;
            loop {
                let length = usize::from(stream.read_u16().await?);
                let mut answer = vec![0; length];
                stream.read_exact(&mut answer).await?;
                if let Some(answer) = question.answer(&answer) {
                    return io::Result::Ok(answer);
                }
            }
        };
        talking.await.map_err(|e| broken(target, &e))
    };
    timeout(TCP_PATIENCE, asking)
        .await
        .unwrap_or_else(|_| Err(timed_out(target, TCP_PATIENCE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_about_destinations_decide_on_names_where_addresses_are_dialled() {
        let owned = |text: &str| vec![text.to_owned()];
        let rules = Routes::parse(&owned("db.example"), &owned("web"), &owned("corp.example"));
        let inside = || Inside::<NoRelay>::new(rules.clone().unwrap(), None, Answered::default());
        let takes = |inside: &Inside, name: &str| inside.takes(&name.parse().unwrap());
        for name in ["a.corp.example.", "corp.example."] {
            assert!(
                takes(&inside(), name) && takes(&inside().deciding(), name),
                "{name}"
            );
        }
        assert!(!takes(&inside(), "db.example.") && takes(&inside().deciding(), "db.example."));
        assert!(!takes(&inside().deciding(), "web."));
        assert!(!inside().decides());
        assert!(inside().deciding().decides() && inside().leaves("web"));
        // Without rules nothing is looked at for each question.
        assert!(!Inside::none().deciding().decides());
    }
}
