//! What streams cost that do nothing.

use std::net::IpAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::load::Via;
use super::process::Running;
use super::relay::Relay;

/// Streams that stand at the same time: nearly what one session may have through two relays.
pub(crate) const STREAMS: usize = 3_000;
/// The argument that makes this program the server.
pub(crate) const HOLD: &str = "--hold";
/// Dials under way at a time.
const AT_ONCE: usize = 64;

/// Memory per stream in KiB, kdev's and the relays': both beyond the sockets, which are the
/// kernel's.
pub(crate) struct Cost {
    pub(crate) kdev: f64,
    pub(crate) relay: f64,
}

/// Opens [`STREAMS`] through `connect` to a server at `node`, an address of this machine that
/// pods reach, says one byte on each and lets them stand.
pub(crate) async fn cost(connect: &Running, node: IpAddr) -> Cost {
    // A process of its own: both ends together are more than one may have open.
    let mut server = Command::new(std::env::current_exe().unwrap());
    server.args([HOLD, &node.to_string()]);
    let mut server = server.stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let stdout = server.as_mut().unwrap().stdout.take().unwrap();
    let line = BufReader::new(stdout).lines().next_line().await.unwrap();
    let via = Via::Socks(connect.address, line.unwrap().parse().unwrap());
    // What the first streams cost is not what streams cost.
    drop(open(&via, 100).await);
    let (kdev, relay) = (connect.resident_mib(), Relay::resident());
    let held = open(&via, STREAMS).await;
    let per = |bytes: f64| bytes / 1024.0 / STREAMS as f64;
    let cost = Cost {
        kdev: per((connect.resident_mib() - kdev) * 1024.0 * 1024.0),
        relay: per(Relay::resident() - relay),
    };
    drop(held);
    cost
}

/// Takes connections at `ip` and says one byte on each, until it is killed.
pub(crate) async fn hold(ip: IpAddr) {
    let server = TcpListener::bind((ip, 0)).await.unwrap();
    println!("{}", server.local_addr().unwrap());
    let mut held = Vec::with_capacity(STREAMS);
    loop {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = stream.write_all(b"!").await;
        held.push(stream);
    }
}

async fn open(via: &Via, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let some = AT_ONCE.min(count - held.len());
        let dials: Vec<_> = (0..some)
            .map(|_| {
                let via = via.clone();
                tokio::spawn(async move {
                    let mut stream = via.connect().await;
                    assert_eq!(stream.read_u8().await.unwrap(), b'!');
                    stream
                })
            })
            .collect();
        for dial in dials {
            held.push(dial.await.unwrap());
        }
    }
    held
}
