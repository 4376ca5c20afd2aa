//! Tunnels between sockets, as kdev and the relay use them.

use super::*;

/// A tunnel between sockets, as kdev and the relay use it: the near side's listener leads to a
/// server of the far side, which sends back what it gets and ends with its client.
async fn between_sockets(tasks: &Tasks) -> std::net::SocketAddr {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (mut socket, _) = server.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    let opener = tunnel(16 << 10, tasks, move |incoming| async move {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = join(incoming.accept().unwrap(), socket).await;
    })
    .await;
    let near = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (socket, _) = near.accept().await.unwrap();
            let opener = opener.clone();
            tokio::spawn(async move {
                let stream = opener.open(&target(), Protocol::Tcp).await.unwrap();
                let _ = join(stream, socket).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_joined_byte_for_byte() {
    let tasks = Tasks::new();
    let near = between_sockets(&tasks).await;
    let mut done = tokio::task::JoinSet::new();
    for seed in 0..13_u8 {
        done.spawn(async move {
            let socket = tokio::net::TcpStream::connect(near).await.unwrap();
            let (mut read, mut write) = socket.into_split();
            // Small writes, then large ones.
            let sent: Vec<u8> = (0..2 << 20).map(|i: usize| (i / 5) as u8 ^ seed).collect();
            let expected = sent.clone();
            let writing = tokio::spawn(async move {
                for piece in sent[..1000].chunks(1).chain(sent[1000..].chunks(100_000)) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            writing.await.unwrap();
            assert!(back == expected, "{seed}: {} bytes", back.len());
        });
    }
    done.join_all().await;
    tasks.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_stops_its_server_alone() {
    let tasks = Tasks::new();
    let near = between_sockets(&tasks).await;
    let mut stuck = tokio::net::TcpStream::connect(near).await.unwrap();
    let flood = async {
        let piece = vec![0; 64 << 10];
        let mut sent = 0_usize;
        while stuck.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    };
    let others = async {
        for _ in 0..20 {
            let mut socket = tokio::net::TcpStream::connect(near).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut back = String::new();
            socket.read_to_string(&mut back).await.unwrap();
            assert_eq!(back, "hello");
        }
    };
    tokio::select! {
        sent = flood => panic!("the way ended after {sent} bytes"),
        () = others => {}
    }
    tasks.kill();
}
