//! The client that asks both servers.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Longest wait for an answer: on loopback a lost one is a failure of the run.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question on the wire, with an id of 0.
pub(crate) fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

pub(crate) struct Client {
    socket: UdpSocket,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// One question, and its answer.
    pub(crate) fn ask(&self, questions: &[Vec<u8>]) -> Vec<u8> {
        self.socket.send(&questions[0]).unwrap();
        let mut answer = vec![0; 1500];
        let length = self.socket.recv(&mut answer).unwrap();
        answer.truncate(length);
        answer
    }

    /// Asks for `time`, always `under_way` at once, and says how long each took.
    pub(crate) fn run(
        &self,
        questions: &[Vec<u8>],
        under_way: usize,
        time: Duration,
    ) -> Vec<Duration> {
        let mut sent = vec![Instant::now(); usize::from(u16::MAX) + 1];
        let mut times = Vec::with_capacity(1 << 20);
        let (mut next, mut answer) = (0_usize, [0; 1500]);
        let mut bytes = Vec::with_capacity(512);
        let mut send = |sent: &mut [Instant]| {
            bytes.clear();
            // Not in order: neighbours share caches.
            bytes.extend(&questions[next * 7919 % questions.len()]);
            bytes[..2].copy_from_slice(&(next as u16).to_be_bytes());
            sent[usize::from(next as u16)] = Instant::now();
            self.socket.send(&bytes).unwrap();
            next += 1;
        };
        let begun = Instant::now();
        for _ in 0..under_way {
            send(&mut sent);
        }
        let mut open = under_way;
        while open > 0 {
            let length = self.socket.recv(&mut answer).expect("an answer");
            assert!(length > 12);
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let now = Instant::now();
            times.push(now - sent[usize::from(id)]);
            if now - begun < time {
                send(&mut sent);
            } else {
                open -= 1;
            }
        }
        times
    }
}
