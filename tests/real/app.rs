//! What an app does: gets through kdev in one of its ways, and speaks HTTP there.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::crypto::hash;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long any exchange may take that has no reason to be slow. Far longer than it should: what
/// is slow but works is another test's matter.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How an app gets through kdev.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// The SOCKS5 proxy; names are sent as they are.
    Socks5(SocketAddr),
    /// HTTP CONNECT.
    Connect(SocketAddr),
    /// The HTTP proxy for plain HTTP.
    Absolute(SocketAddr),
    /// A port of `kdev forward`, whatever the target.
    Port(SocketAddr),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A SOCKS5 reply other than 0.
    Socks(u8),
    /// The proxy's answer to CONNECT.
    Status(u16, String),
    Io(#[expect(dead_code, reason = "shown by Debug")] io::Error),
    Timeout,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find_map(|(n, v)| n.eq_ignore_ascii_case(name).then_some(v.as_str()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

pub(crate) type Stream = BufReader<TcpStream>;

impl Way {
    /// A stream on which the app speaks with `target` (`HOST:PORT`), or with the HTTP proxy.
    pub(crate) async fn open(self, target: &str) -> Result<Stream, Failure> {
        let opening = async {
            match self {
                Self::Socks5(proxy) => socks5(proxy, target).await,
                Self::Connect(proxy) => {
                    let mut stream = plain(proxy).await?;
                    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await?;
                    let (status, headers) = head_of(&mut stream).await?;
                    if status == 200 {
                        return Ok(stream);
                    }
                    let body = body_of(&mut stream, &headers, &mut Vec::new()).await?;
                    Err(Failure::Status(
                        status,
                        String::from_utf8_lossy(&body).into(),
                    ))
                }
                Self::Absolute(address) | Self::Port(address) => Ok(plain(address).await?),
            }
        };
        let opened = tokio::time::timeout(LIMIT, opening).await;
        opened.unwrap_or(Err(Failure::Timeout))
    }

    /// The first line of a request and its Host.
    pub(crate) fn head(self, method: &str, target: &str, path: &str) -> String {
        let origin = match self {
            Self::Absolute(_) => format!("http://{target}"),
            _ => String::new(),
        };
        format!("{method} {origin}{path} HTTP/1.1\r\nHost: {target}\r\n")
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(self, target: &str, path: &str) -> Result<Answer, Failure> {
        let exchange = async {
            let mut stream = self.open(target).await?;
            let head = self.head("GET", target, path) + "Connection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            answer(&mut stream).await
        };
        let answered = tokio::time::timeout(LIMIT, exchange).await;
        answered.unwrap_or(Err(Failure::Timeout))
    }

    /// Asks for `path` and gives the stream from the body's first byte on, with its length.
    pub(crate) async fn download(self, target: &str, path: &str) -> Result<(Stream, u64), Failure> {
        let mut stream = self.open(target).await?;
        let head = self.head("GET", target, path) + "Connection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let (status, headers) = head_of(&mut stream).await?;
        let length = headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
        match length.and_then(|(_, v)| v.parse().ok()) {
            Some(length) if status == 200 => Ok((stream, length)),
            _ => Err(Failure::Status(status, format!("{headers:?}"))),
        }
    }
}

async fn plain(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}

async fn socks5(proxy: SocketAddr, target: &str) -> Result<Stream, Failure> {
    let (host, port) = target.rsplit_once(':').unwrap();
    let mut stream = plain(proxy).await?;
    stream.write_all(&[5, 1, 0]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    assert_eq!(chosen, [5, 0], "the proxy asks for a login");
    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        _ => {
            request.extend([3, host.len() as u8]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.parse::<u16>().unwrap().to_be_bytes());
    stream.write_all(&request).await?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    let rest = match reply[3] {
        1 => 6,
        4 => 18,
        kind => panic!("address of type {kind} in {reply:?}"),
    };
    stream.read_exact(&mut vec![0; rest]).await?;
    match reply[1] {
        0 => Ok(stream),
        code => Err(Failure::Socks(code)),
    }
}

/// Reads one answer, interim ones left out.
pub(crate) async fn answer(stream: &mut Stream) -> Result<Answer, Failure> {
    let (status, headers) = loop {
        let (status, headers) = head_of(stream).await?;
        if status >= 200 {
            break (status, headers);
        }
    };
    let mut trailers = Vec::new();
    let body = body_of(stream, &headers, &mut trailers).await?;
    Ok(Answer {
        status,
        headers,
        body,
        trailers,
    })
}

type Headers = Vec<(String, String)>;

/// Reads the head of an answer.
pub(crate) async fn head_of(stream: &mut Stream) -> Result<(u16, Headers), Failure> {
    let line = line(stream).await?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| malformed(&line))?;
    Ok((status, headers_of(stream).await?))
}

async fn headers_of(stream: &mut Stream) -> Result<Headers, Failure> {
    let mut headers = Vec::new();
    loop {
        let line = line(stream).await?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

async fn body_of(
    stream: &mut Stream,
    headers: &Headers,
    trailers: &mut Headers,
) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let find = |name| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    if find("transfer-encoding").is_some() {
        loop {
            let line = line(stream).await?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| malformed(&line))?;
            if size == 0 {
                *trailers = headers_of(stream).await?;
                return Ok(body);
            }
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..]).await?;
            stream.read_exact(&mut [0; 2]).await?;
        }
    }
    match find("content-length") {
        Some((_, length)) => {
            body.resize(length.parse().map_err(|_| malformed(length))?, 0);
            stream.read_exact(&mut body).await?;
        }
        None => {
            stream.read_to_end(&mut body).await?;
        }
    }
    Ok(body)
}

async fn line(stream: &mut Stream) -> Result<String, Failure> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None if line.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        None => Err(malformed(&line)),
    }
}

fn malformed(what: &str) -> Failure {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what:?}")).into()
}

/// SHA-256. Taken from the TLS library, which is there anyway and fast without optimisation too.
pub(crate) struct Sha256(Box<dyn hash::Context>);

impl Sha256 {
    pub(crate) fn new() -> Self {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
        Self(suite.tls13().unwrap().common.hash_provider.start())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn hex(self) -> String {
        let sum = self.0.finish();
        sum.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }
}
