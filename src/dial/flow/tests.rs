// Tests end with their runtime, so nothing has to wait for these tasks.
#![allow(clippy::disallowed_methods)]

use super::*;

/// Two flows whose capsules go to each other through a pipe of `size` bytes.
fn linked(size: usize) -> (Flow, Flow) {
    let (one, other) = tokio::io::duplex(size);
    let room = || Room::new(1 << 20);
    (Flow::capsules(one, room()), Flow::capsules(other, room()))
}

async fn sockets() -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    one.connect(other.local_addr().unwrap()).await.unwrap();
    other.connect(one.local_addr().unwrap()).await.unwrap();
    (one, other)
}

async fn next(from: &mut FlowReceiver) -> Option<Vec<u8>> {
    let mut datagram = BytesMut::new();
    let more = from.receive(&mut datagram).await.unwrap();
    more.then(|| datagram.to_vec())
}

#[tokio::test]
async fn datagrams_keep_their_borders_through_any_pipe() {
    for pipe in [8, 100, 1 << 20] {
        let (one, other) = linked(pipe);
        let (mut to, _keep) = one.split();
        let (_other_to, mut from) = other.split();
        let sizes = [0, 1, 1400, 2042, 2043, 9000, datagram::MAX_PAYLOAD];
        let sending = async {
            for size in sizes {
                to.send(&vec![7; size]).await.unwrap();
            }
            to.finish().await;
        };
        let receiving = async {
            for size in sizes {
                assert_eq!(next(&mut from).await.unwrap(), vec![7; size], "{pipe}");
            }
            assert_eq!(next(&mut from).await, None);
        };
        tokio::join!(sending, receiving);
    }
}

#[tokio::test]
async fn a_receive_that_is_given_up_loses_nothing() {
    let (one, other) = linked(8);
    let (mut to, _keep) = one.split();
    let (_other_to, mut from) = other.split();
    let mut sent = tokio::spawn(async move {
        to.send(&[1; 64]).await.unwrap();
        to
    });
    let mut datagram = BytesMut::new();
    let mut polls = 0;
    loop {
        tokio::select! {
            biased;
            more = from.receive(&mut datagram) => break assert!(more.unwrap()),
            () = tokio::task::yield_now() => polls += 1,
        }
    }
    assert!(polls > 4, "the pipe is too small for one poll");
    assert_eq!(&datagram[..], [1; 64]);
    (&mut sent).await.unwrap();
}

#[tokio::test]
async fn large_datagrams_need_room_and_small_ones_none() {
    let (one, other) = tokio::io::duplex(1 << 20);
    let (mut to, _keep) = Flow::capsules(one, Room::new(0)).split();
    let (_other_to, mut from) = Flow::capsules(other, Room::new(0)).split();
    to.send(&[1; 1400]).await.unwrap();
    assert_eq!(next(&mut from).await.unwrap().len(), 1400);
    // In two pieces, so that it has to be kept for a while.
    let sending = async {
        to.send(&[1; 60_000]).await.unwrap();
    };
    let mut datagram = BytesMut::new();
    let (received, ()) = tokio::join!(from.receive(&mut datagram), sending);
    assert!(received.is_err(), "{received:?}");
}

/// Both ends write more than the pipes hold before they read: neither may wait for the other.
#[tokio::test]
async fn two_flows_that_are_joined_never_stand_still() {
    let (app, socket) = sockets().await;
    let (near, far) = linked(1 << 10);
    let room = Room::new(1 << 20);
    tokio::spawn(
        async move { join(Flow::socket(socket), near, Duration::from_secs(60), &room).await },
    );
    let (mut to, mut from) = far.split();
    let flood = async {
        for _ in 0..2000 {
            to.send(&[3; 1000]).await.unwrap();
        }
    };
    let answers = async {
        for _ in 0..2000 {
            // What the kernel does not take is lost.
            let _ = app.try_send(&[4; 1000]);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(flood, answers);
    // Nobody read so far, and yet all of the flood went on.
    assert_eq!(next(&mut from).await.unwrap(), [4; 1000]);
    let mut datagram = [0; 2000];
    assert_eq!(app.recv(&mut datagram).await.unwrap(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_flow_ends() {
    let (near, far) = linked(1 << 10);
    let (other_near, other_far) = linked(1 << 10);
    let begun = Instant::now();
    let room = Room::new(1 << 20);
    let joined =
        tokio::spawn(async move { join(far, other_near, Duration::from_secs(60), &room).await });
    let (mut to, _from) = near.split();
    let (_to, mut from) = other_far.split();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        to.send(b"alive").await.unwrap();
        assert_eq!(next(&mut from).await.unwrap(), b"alive");
    }
    assert_eq!(joined.await.unwrap(), Transferred { forth: 15, back: 0 });
    let lived = begun.elapsed().as_secs();
    assert!((209..=212).contains(&lived), "{lived}");
    assert_eq!(next(&mut from).await, None);
}

#[tokio::test]
async fn a_closed_port_ends_no_flow() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    drop(server);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    let (mut to, mut from) = Flow::socket(socket).split();
    to.send(b"nobody is there").await.unwrap();
    let mut datagram = BytesMut::new();
    let waited = tokio::time::timeout(Duration::from_millis(50), from.receive(&mut datagram)).await;
    assert!(waited.is_err(), "{waited:?}");
    let server = UdpSocket::bind(address).await.unwrap();
    to.send(b"hello").await.unwrap();
    let mut buffer = [0; 64];
    let (n, peer) = server.recv_from(&mut buffer).await.unwrap();
    server.send_to(&buffer[..n], peer).await.unwrap();
    assert_eq!(next(&mut from).await.unwrap(), b"hello");
}
