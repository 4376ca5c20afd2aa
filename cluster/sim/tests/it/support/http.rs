//! HTTP by hand: one request, one answer.

use kdev_sim::SimCluster;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Tls, connect, within};

/// An answer whose body was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A header's value; names as Go writes them are not the point, so case does not count.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends a request with an empty or JSON body on a connection of its own.
pub(crate) async fn ask(
    cluster: &SimCluster,
    token: &str,
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    within(async {
        let mut io = connect(cluster).await.unwrap();
        send(&mut io, token, line, headers, body).await;
        let (code, head) = head(&mut io).await;
        let body = body_of(&mut io, &head).await;
        Answer { code, head, body }
    })
    .await
}

/// A GET with a token.
pub(crate) async fn get(cluster: &SimCluster, token: &str, path: &str) -> Answer {
    ask(cluster, token, &format!("GET {path}"), &[], "").await
}

/// Sends a request and leaves the connection as it is after the head of the answer.
pub(crate) async fn open(
    cluster: &SimCluster,
    token: &str,
    line: &str,
    headers: &[(&str, &str)],
) -> (u16, String, Tls) {
    within(async {
        let mut io = connect(cluster).await.unwrap();
        send(&mut io, token, line, headers, "").await;
        let (code, head) = head(&mut io).await;
        (code, head, io)
    })
    .await
}

async fn send<W: AsyncWrite + Unpin>(
    io: &mut W,
    token: &str,
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
) {
    let mut request = format!("{line} HTTP/1.1\r\nHost: cluster\r\n");
    if !token.is_empty() {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    io.write_all(request.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
}

/// Reads up to the empty line, and no byte further.
async fn head<R: AsyncRead + Unpin>(io: &mut R) -> (u16, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head)
}

async fn body_of<R: AsyncRead + Unpin>(io: &mut R, head: &str) -> String {
    let head = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some(rest) = head.split("content-length: ").nth(1) {
        let length = rest.split("\r\n").next().unwrap().parse().unwrap();
        body.resize(length, 0);
        io.read_exact(&mut body).await.unwrap();
    } else {
        while let Some(chunk) = chunk(io).await {
            body.extend_from_slice(&chunk);
        }
    }
    String::from_utf8(body).unwrap()
}

/// One chunk of a chunked body; `None` at its end or the connection's.
pub(crate) async fn chunk<R: AsyncRead + Unpin>(io: &mut R) -> Option<Vec<u8>> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.push(io.read_u8().await.ok()?);
    }
    let size = String::from_utf8(size).unwrap();
    let size = usize::from_str_radix(size.trim(), 16).unwrap();
    let mut chunk = vec![0; size + 2];
    io.read_exact(&mut chunk).await.ok()?;
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}
