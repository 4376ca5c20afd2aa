//! Port-forward connections, frame by frame.

use std::time::Duration;

use kdev_sim::SimCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http::open;
use super::{Tls, within};

/// What every handshake of a plain upgrade carries.
pub(crate) const SPDY: [(&str, &str); 3] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "SPDY/3.1"),
    ("X-Stream-Protocol-Version", "portforward.k8s.io"),
];

pub(crate) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

pub(crate) fn websocket(protocol: &str) -> Vec<(&str, &str)> {
    let mut headers = vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    if !protocol.is_empty() {
        headers.push(("Sec-WebSocket-Protocol", protocol));
    }
    headers
}

pub(crate) fn path(pod: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{pod}/portforward")
}

/// A frame from the server, as much of it as tests look at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Reply(u32),
    Reset(u32, u32),
    Ping(u32),
    GoAway(u32),
    Data(u32, Vec<u8>),
    Fin(u32),
    End,
}

/// One SPDY connection, plain or in a tunnel.
pub(crate) struct Spdy {
    io: Tls,
    tunnelled: bool,
    buffer: Vec<u8>,
    zlib_begun: bool,
}

impl Spdy {
    pub(crate) async fn plain(cluster: &SimCluster, pod: &str) -> Self {
        let (code, head, io) =
            open(cluster, "dev-token", &format!("POST {}", path(pod)), &SPDY).await;
        assert_eq!(code, 101, "{head}");
        Self {
            io,
            tunnelled: false,
            buffer: Vec::new(),
            zlib_begun: false,
        }
    }

    pub(crate) async fn tunnelled(cluster: &SimCluster, pod: &str) -> Self {
        let line = format!("GET {}", path(pod));
        let (code, head, io) = open(cluster, "dev-token", &line, &websocket(TUNNEL)).await;
        assert_eq!(code, 101, "{head}");
        Self {
            io,
            tunnelled: true,
            buffer: Vec::new(),
            zlib_begun: false,
        }
    }

    /// Both forms, for what must hold in either.
    pub(crate) async fn both(cluster: &SimCluster, pod: &str) -> [Self; 2] {
        [
            Self::plain(cluster, pod).await,
            Self::tunnelled(cluster, pod).await,
        ]
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let framed = if self.tunnelled {
            client_frame(2, bytes)
        } else {
            bytes.to_vec()
        };
        self.io.write_all(&framed).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Sends for as long as the server takes it; false when it stopped for a second.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        tokio::time::timeout(Duration::from_secs(1), self.send(bytes))
            .await
            .is_ok()
    }

    pub(crate) async fn hang_up(&mut self) {
        let _ = self.io.shutdown().await;
    }

    /// SYN_STREAM with headers in a stored zlib block: valid, and needs no compressor.
    pub(crate) fn syn(&mut self, id: u32, fin: bool, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut names = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            names.extend((text.len() as u32).to_be_bytes());
            names.extend(text.as_bytes());
        }
        let mut body = [id.to_be_bytes(), [0; 4]].concat();
        body.extend([0, 0]);
        if !std::mem::replace(&mut self.zlib_begun, true) {
            body.extend([0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2]);
        }
        let length = names.len() as u16;
        body.push(0);
        body.extend(length.to_le_bytes());
        body.extend((!length).to_le_bytes());
        body.extend(names);
        control(1, u8::from(fin), &body)
    }

    /// The two streams of one connection: error (closed at once) and data, ids `id` and `id + 2`.
    pub(crate) fn pair(&mut self, id: u32, port: u16) -> Vec<u8> {
        let (port, request) = (port.to_string(), id.to_string());
        let headers = |kind| {
            [
                ("streamtype", kind),
                ("port", port.as_str()),
                ("requestid", request.as_str()),
            ]
        };
        let error = self.syn(id, true, &headers("error"));
        [error, self.syn(id + 2, false, &headers("data"))].concat()
    }

    /// The next frame; [`Frame::End`] at the end of the connection.
    pub(crate) async fn next(&mut self) -> Frame {
        within(self.frame()).await
    }

    /// Whether nothing comes for this long.
    pub(crate) async fn is_quiet(&mut self, millis: u64) -> bool {
        super::pending_for(millis, self.frame()).await
    }

    /// Every frame until a stream ended or the connection did, replies left out.
    pub(crate) async fn story(&mut self, ends: usize) -> Vec<Frame> {
        let mut story = Vec::new();
        let mut ended = 0;
        while ended < ends {
            let frame = self.next().await;
            match frame {
                Frame::Reply(_) => continue,
                Frame::Fin(_) | Frame::Reset(..) => ended += 1,
                Frame::End => ended = ends,
                _ => {}
            }
            story.push(frame);
        }
        story
    }

    /// The bytes that come on a stream until `count` are there.
    pub(crate) async fn data(&mut self, id: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next().await {
                Frame::Data(from, data) if from == id => bytes.extend(data),
                Frame::Reply(_) | Frame::Data(..) => {}
                other => panic!("unexpected {other:?} after {} bytes", bytes.len()),
            }
        }
        bytes
    }

    async fn frame(&mut self) -> Frame {
        let Some(head) = self.take(8).await else {
            return Frame::End;
        };
        let word = u32::from_be_bytes(head[..4].try_into().unwrap());
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let Some(body) = self.take(length).await else {
            return Frame::End;
        };
        let number = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        match word {
            0x8003_0002 => Frame::Reply(number(0)),
            0x8003_0003 => Frame::Reset(number(0), number(4)),
            0x8003_0006 => Frame::Ping(number(0)),
            0x8003_0007 => Frame::GoAway(number(0)),
            id if id < 0x8000_0000 && head[4] == 1 => {
                assert!(body.is_empty(), "a FIN with bytes");
                Frame::Fin(id)
            }
            id if id < 0x8000_0000 => {
                assert!(body.len() <= 32 * 1024, "a frame of {} bytes", body.len());
                Frame::Data(id, body)
            }
            other => panic!("frame {other:#x}"),
        }
    }

    /// Takes bytes of the SPDY stream. Nothing is lost when this is dropped half-way.
    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if self.tunnelled {
                let (opcode, payload) = server_frame(&mut self.io).await?;
                match opcode {
                    2 => self.buffer.extend(payload),
                    8 => return None,
                    other => panic!("opcode {other}"),
                }
            } else if self.io.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 0x03];
    out.extend(kind.to_be_bytes());
    out.extend((body.len() as u32 | u32::from(flags) << 24).to_be_bytes());
    out.extend(body);
    out
}

pub(crate) fn data(id: u32, bytes: &[u8]) -> Vec<u8> {
    [
        &id.to_be_bytes(),
        &(bytes.len() as u32).to_be_bytes(),
        bytes,
    ]
    .concat()
}

pub(crate) fn fin(id: u32) -> Vec<u8> {
    [id.to_be_bytes(), (1_u32 << 24).to_be_bytes()].concat()
}

pub(crate) fn reset(id: u32) -> Vec<u8> {
    control(3, 0, &[id.to_be_bytes(), 5_u32.to_be_bytes()].concat())
}

pub(crate) fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}

pub(crate) fn go_away() -> Vec<u8> {
    control(7, 0, &[0; 8])
}

/// A WebSocket frame from a client, masked.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 11, 13, 17];
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

/// A WebSocket frame from the server; `None` at the end.
pub(crate) async fn server_frame(io: &mut Tls) -> Option<(u8, Vec<u8>)> {
    let opcode = io.read_u8().await.ok()?;
    let length = match io.read_u8().await.ok()? {
        126 => u64::from(io.read_u16().await.ok()?),
        127 => io.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut payload = vec![0; length as usize];
    io.read_exact(&mut payload).await.ok()?;
    Some((opcode & 0x0f, payload))
}
