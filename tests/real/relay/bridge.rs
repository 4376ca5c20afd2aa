//! A local UDP port that leads through SOCKS5 UDP ASSOCIATE, for programs that know no proxy.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Ends when it is dropped.
pub(super) struct Bridge {
    pub(super) address: SocketAddr,
    task: JoinSet<()>,
}

impl Bridge {
    /// From `local`, where one program sends from, through `proxy` to `target` (`HOST:PORT`).
    pub(super) async fn open(local: &str, proxy: SocketAddr, target: &str) -> Self {
        let mut tcp = TcpStream::connect(proxy).await.unwrap();
        tcp.write_all(&[5, 1, 0]).await.unwrap();
        tcp.read_exact(&mut [0; 2]).await.unwrap();
        tcp.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let mut reply = [0; 10];
        tcp.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..4], [5, 0, 0, 1]);
        let port = u16::from_be_bytes([reply[8], reply[9]]);
        let to_kdev = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        to_kdev.connect((proxy.ip(), port)).await.unwrap();
        let app = UdpSocket::bind(local).await.unwrap();
        let address = app.local_addr().unwrap();
        let header = header(target);
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The association lives as long as this connection.
            let _tcp = tcp;
            carry(&app, &to_kdev, &header).await;
        });
        Self { address, task }
    }

    /// Ends it, and waits until its port is free for another one.
    pub(super) async fn close(mut self) {
        self.task.shutdown().await;
    }
}

/// What stands before each datagram (RFC 1928, 7).
fn header(target: &str) -> Vec<u8> {
    let (host, port) = target.rsplit_once(':').unwrap();
    let mut header = vec![0, 0, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            header.push(1);
            header.extend(ip.octets());
        }
        _ => {
            header.extend([3, host.len() as u8]);
            header.extend(host.as_bytes());
        }
    }
    header.extend(port.parse::<u16>().unwrap().to_be_bytes());
    header
}

async fn carry(app: &UdpSocket, to_kdev: &UdpSocket, header: &[u8]) {
    let (mut from_app, mut from_kdev) = (vec![0; 65_536], vec![0; 65_536]);
    from_app[..header.len()].copy_from_slice(header);
    let mut peer = None;
    loop {
        tokio::select! {
            received = app.recv_from(&mut from_app[header.len()..]) => {
                let Ok((n, from)) = received else { continue };
                peer = Some(from);
                let _ = to_kdev.send(&from_app[..header.len() + n]).await;
            }
            received = to_kdev.recv(&mut from_kdev) => {
                let (Ok(n), Some(peer)) = (received, peer) else { continue };
                assert_eq!(&from_kdev[..header.len()], header);
                let _ = app.send_to(&from_kdev[header.len()..n], peer).await;
            }
        }
    }
}
