//! The floor: the same client through kdev's SOCKS proxy to a server on loopback, with no cluster
//! between. What is slow here is the harness or the machine.

use std::net::SocketAddr;

use kdev::dial::Laptop;
use kdev::proxy::{self, Access};
use kdev::task::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Floor {
    pub(crate) proxy: SocketAddr,
    pub(crate) origin: SocketAddr,
    _tasks: Tasks,
}

pub(crate) async fn start() -> Floor {
    let tasks = Tasks::new();
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let floor = Floor {
        proxy: listener.local_addr().unwrap(),
        origin: origin.local_addr().unwrap(),
        _tasks: tasks.clone(),
    };
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, _)) = origin.accept().await {
            connections.spawn(serve(stream));
        }
    });
    let config = proxy::Config::new(Access::SameUser { password: None });
    tasks.spawn(proxy::serve(
        listener,
        Laptop { loopback: true },
        config,
        tasks.clone(),
    ));
    floor
}

/// Answers one request as the lab's nginx does: a name, a range of zeros, or an upload.
async fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    let head = loop {
        if let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let number =
        |key: &str| -> Option<u64> { text.split(key).nth(1)?.lines().next()?.trim().parse().ok() };
    let zeros = vec![0; 256 << 10];
    let sent = async {
        if text.starts_with("PUT") {
            let mut left = number("Content-Length: ").unwrap() - (request.len() - head) as u64;
            let mut buffer = vec![0; 256 << 10];
            while left > 0 {
                left -= stream.read(&mut buffer).await?.max(1) as u64;
            }
            stream
                .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
                .await?;
        } else if let Some(last) = number("Range: bytes=0-") {
            let length = last + 1;
            let head = format!("HTTP/1.1 206 Partial\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut left = length as usize;
            while left > 0 {
                let n = left.min(zeros.len());
                stream.write_all(&zeros[..n]).await?;
                left -= n;
            }
        } else {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfloor")
                .await?;
        }
        stream.shutdown().await
    };
    // The client leaves when it has what it wants.
    let _: std::io::Result<()> = sent.await;
}
