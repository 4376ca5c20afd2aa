//! Asks nameservers: UDP, and TCP where an answer does not fit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::conf::Conf;
use super::message::{A, AAAA, Answer, LARGEST, Question};

/// How long one server is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often all servers are asked.
const ATTEMPTS: usize = 2;

/// The addresses of a full name and how long they hold; none where it has none. IPv4 comes first,
/// since few clusters have anything else.
pub(super) async fn ask(conf: &Conf, name: &str) -> io::Result<(Vec<IpAddr>, Duration)> {
    let (v4, v6) = tokio::join!(ask_kind(conf, name, A), ask_kind(conf, name, AAAA));
    let (v4, v6) = match (v4, v6) {
        (Ok(v4), Ok(v6)) => (v4, v6),
        // Servers that know nothing of IPv6 exist.
        (Ok(v4), Err(_)) if !v4.addresses.is_empty() => (v4, Answer::default()),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let ttl = match (v4.addresses.is_empty(), v6.addresses.is_empty()) {
        (false, false) => v4.ttl.min(v6.ttl),
        (true, _) => v6.ttl,
        (_, true) => v4.ttl,
    };
    let mut addresses = v4.addresses;
    addresses.extend(v6.addresses);
    Ok((addresses, ttl))
}

async fn ask_kind(conf: &Conf, name: &str, kind: u16) -> io::Result<Answer> {
    let Some(question) = Question::new(name, kind) else {
        // No server can know a name that fits no message.
        return Ok(Answer::default());
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no nameserver is known");
    for _ in 0..ATTEMPTS {
        for server in &conf.servers {
            match timeout(TIMEOUT, ask_server(*server, &question)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    let text = format!("{server} did not answer within {} s", TIMEOUT.as_secs());
                    last = io::Error::new(io::ErrorKind::TimedOut, text);
                }
            }
        }
    }
    Err(last)
}

async fn ask_server(server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket and a number of its own for each question, so that answers are hard to forge.
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    let query = question.encode()?;
    socket.send(&query).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let n = socket.recv(&mut buffer).await?;
        match Answer::parse(&query, &buffer[..n])? {
            Some(answer) if answer.truncated => break,
            Some(answer) => return Ok(answer),
            // Not the answer to this question.
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    stream.write_all(&[&length, &query[..]].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    let answer = Answer::parse(&query, &buffer)?;
    answer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer to something else"))
}
