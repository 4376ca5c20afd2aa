//! Connections against a scripted server, frame by frame.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::connection::{Connection, Fitness};
use super::counters::Counters;
use super::outgoing::Framing;
use super::spdy::{Decoder, Frame, encode};
use super::state::{PodReset, RECEIVE_HIGH};
use crate::dial::DialError;
use crate::task::Tasks;

/// The server's end of a connection with one stream opened: the error stream is 1, the data
/// stream 3.
struct Server {
    io: DuplexStream,
    decoder: Decoder,
    unread: Bytes,
}

impl Server {
    async fn send(&mut self, frames: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        frames(&mut out);
        self.io.write_all(&out).await.unwrap();
    }

    async fn data(&mut self, stream: u32, payload: &[u8], fin: bool) {
        self.send(|out| {
            encode::data_header(out, stream, payload.len(), fin);
            out.put_slice(payload);
        })
        .await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.unread).unwrap() {
                return Some(frame);
            }
            let mut buffer = BytesMut::with_capacity(4096);
            if self.io.read_buf(&mut buffer).await.unwrap() == 0 {
                return None;
            }
            self.unread = buffer.freeze();
        }
    }

    /// The next frame that is no ping.
    async fn next_but_pings(&mut self) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(Frame::Ping { .. }) => {}
                other => return other,
            }
        }
    }
}

fn connected(room: usize) -> (Connection, Server, Tasks) {
    let (io, peer) = duplex(room);
    let tasks = Tasks::new();
    let connection = Connection::start(io, Framing::Plain, Arc::<Counters>::default(), &tasks);
    let server = Server {
        io: peer,
        decoder: Decoder::new(),
        unread: Bytes::new(),
    };
    (connection, server, tasks)
}

#[tokio::test]
async fn a_stream_carries_both_ways_through_a_tiny_pipe() {
    let (connection, mut server, _tasks) = connected(8);
    let mut stream = connection.open(80, "web:80").unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut asked = Vec::new();
    loop {
        match server.next_but_pings().await.unwrap() {
            Frame::SynStream { .. } => {}
            Frame::Data {
                stream: 3,
                payload,
                fin,
            } => {
                asked.extend_from_slice(&payload);
                if fin {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, b"question");
    server.data(3, b"answer", false).await;
    server.data(3, b"", true).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn a_late_refusal_is_an_error_that_names_its_cause() {
    let (connection, mut server, _tasks) = connected(4096);
    let mut stream = connection.open(81, "web:81").unwrap();
    server
        .data(
            1,
            b"dial tcp4 127.0.0.1:81: connect: connection refused",
            false,
        )
        .await;
    for id in [1, 3] {
        server.send(|out| encode::rst_stream(out, id, 5)).await;
    }
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    let cause = DialError::from_io(&error).expect("a DialError inside");
    assert!(matches!(cause, DialError::Refused { .. }), "{cause}");
    assert!(stream.write_all(b"x").await.is_err());
    // It is of this stream alone.
    assert_eq!(connection.fitness(), Fitness::Fit(1));
}

#[tokio::test]
async fn a_reset_in_mid_stream_is_no_refusal() {
    for sent in [&b"hello"[..], b""] {
        let (connection, mut server, _tasks) = connected(4096);
        let mut stream = connection.open(80, "web:80").unwrap();
        if !sent.is_empty() {
            server.data(3, sent, false).await;
            stream.read_exact(&mut [0; 5]).await.unwrap();
        }
        let text = b"error copying from local connection to remote stream: read tcp4 \
                     127.0.0.1:40000->127.0.0.1:80: read: connection reset by peer";
        server.data(1, text, false).await;
        for id in [1, 3] {
            server.send(|out| encode::rst_stream(out, id, 5)).await;
        }
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        // What may be sent again where a pod refused it may not be sent again here.
        assert!(DialError::from_io(&error).is_none(), "{error}");
        let received = sent.len() as u64;
        assert_eq!(PodReset::from_io(&error), Some(&PodReset { received }));
        let words = format!("the pod reset the connection after it had sent {received} B");
        assert_eq!(error.to_string(), words);
    }
}

#[tokio::test]
async fn an_empty_end_waits_for_the_error_stream() {
    for (text, refused) in [(&b"unable to do port forwarding"[..], true), (b"", false)] {
        let (connection, mut server, _tasks) = connected(4096);
        let mut stream = connection.open(80, "web:80").unwrap();
        server.data(3, b"", true).await;
        let mut buffer = [0; 1];
        let mut read = Box::pin(stream.read(&mut buffer));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut read).await;
        assert!(early.is_err(), "judged before the error stream ended");
        server.data(1, text, true).await;
        assert_eq!(read.await.is_err(), refused);
    }
}

#[tokio::test]
async fn a_full_stream_stops_the_connection_and_loses_nothing() {
    let (connection, mut server, _tasks) = connected(64 << 10);
    let mut slow = connection.open(80, "web:80").unwrap();
    let total = 3 * RECEIVE_HIGH;
    let sending = async {
        let chunk = vec![7; 16 << 10];
        for _ in 0..total / chunk.len() {
            server.data(3, &chunk, false).await;
        }
        server.data(3, b"", true).await;
    };
    tokio::pin!(sending);
    // The pipe fills up: the server cannot go on until the app reads.
    let blocked = tokio::time::timeout(Duration::from_millis(200), &mut sending).await;
    assert!(blocked.is_err(), "an unread stream took everything");
    assert_eq!(connection.fitness(), Fitness::Busy);
    let mut all = Vec::new();
    let (read, ()) = tokio::join!(slow.read_to_end(&mut all), sending);
    assert_eq!(read.unwrap(), total);
    assert!(all.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_dropped_full_stream_lets_the_others_go_on() {
    let (connection, mut server, _tasks) = connected(64 << 10);
    let slow = connection.open(80, "web:80").unwrap();
    let mut other = connection.open(80, "web:80").unwrap();
    let sending = async {
        let chunk = vec![7; 16 << 10];
        for _ in 0..2 * RECEIVE_HIGH / chunk.len() {
            server.data(3, &chunk, false).await;
        }
        server.data(7, b"hello", false).await;
        server
    };
    tokio::pin!(sending);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut sending)
            .await
            .is_err()
    );
    drop(slow);
    let mut greeting = [0; 5];
    let (read, _server) = tokio::join!(other.read_exact(&mut greeting), sending);
    read.unwrap();
    assert_eq!(&greeting, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_silent_path_is_dead_after_two_pings_and_takes_no_stream_before() {
    let (connection, mut server, _tasks) = connected(4096);
    let mut stream = connection.open(80, "web:80").unwrap();
    // The first ping measures the round trip; it is answered, and then nothing is any more.
    let id = loop {
        if let Some(Frame::Ping { id }) = server.next().await {
            break id;
        }
    };
    server.send(|out| encode::ping(out, id)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connection.fitness(), Fitness::Fit(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(connection.fitness(), Fitness::Suspect);
    let began = tokio::time::Instant::now();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(error.to_string().contains("lost"), "{error}");
    assert_eq!(connection.fitness(), Fitness::Closed);
    assert!(connection.open(80, "web:80").is_none());
}

#[tokio::test(start_paused = true)]
async fn pings_behind_a_stuck_upload_prove_nothing() {
    let (connection, server, _tasks) = connected(64 << 10);
    let mut stream = connection.open(80, "web:80").unwrap();
    // The pod does not read: the pipe and our buffer fill up.
    let upload = vec![0; 1 << 20];
    let stuck = tokio::time::timeout(Duration::from_secs(60), stream.write_all(&upload)).await;
    assert!(stuck.is_err(), "somebody read the upload");
    assert_ne!(connection.fitness(), Fitness::Closed);
    drop(server);
}

#[tokio::test]
async fn garbage_ends_the_connection_and_its_streams() {
    let garbage: [&[u8]; 5] = [
        b"HTTP/1.1 500 no\r\n\r\n\0\0\0\0\0\0\0\0",
        &[0xff; 64],
        &[0x80; 64],
        &[0x80, 2, 0, 1, 0, 0, 0, 0],
        &[0x80, 3, 0, 99, 0, 0, 0, 0],
    ];
    for (n, bytes) in garbage.into_iter().enumerate() {
        let (connection, mut server, _tasks) = connected(4096);
        let mut stream = connection.open(80, "web:80").unwrap();
        server.io.write_all(bytes).await.unwrap();
        // What looks like the frame of an unknown stream is skipped until the peer leaves.
        server.io.shutdown().await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await;
        assert!(
            read.expect("the stream hangs").is_err(),
            "garbage {n} was taken for bytes"
        );
        assert_eq!(connection.fitness(), Fitness::Closed);
    }
}

#[tokio::test]
async fn goaway_keeps_what_runs_and_takes_nothing_new() {
    let (connection, mut server, _tasks) = connected(4096);
    let mut stream = connection.open(80, "web:80").unwrap();
    server.send(encode::goaway).await;
    server.data(3, b"still here", false).await;
    let mut buffer = [0; 10];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(connection.fitness(), Fitness::Closed);
    assert!(connection.open(80, "web:80").is_none());
}

#[tokio::test]
async fn dropping_a_stream_tells_the_server_once() {
    let (connection, mut server, _tasks) = connected(4096);
    drop(connection.open(80, "web:80").unwrap());
    let mut resets = 0;
    connection.close();
    while let Some(frame) = server.next_but_pings().await {
        match frame {
            Frame::Reset {
                stream: 3,
                status: 5,
            } => resets += 1,
            Frame::SynStream { .. } => {}
            Frame::GoAway => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resets, 1);
}

/// What runtimes do that end a refused stream without a reset.
async fn refuse_without_reset(server: &mut Server, error: u32, data: u32) {
    server.data(data, b"", true).await;
    let text = b"failed to dial 81: connect: connection refused";
    server.data(error, text, false).await;
    server.data(error, b"", true).await;
}

async fn settled(connection: &Connection, fitness: Fitness) {
    let settling = async {
        while connection.fitness() != fitness {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(5), settling).await;
    assert!(settled.is_ok(), "{:?}", connection.fitness());
}

#[tokio::test]
async fn a_refusal_that_leaves_bytes_behind_takes_its_worker_with_it() {
    for app_leaves_first in [false, true] {
        let (connection, mut server, _tasks) = connected(4096);
        let mut refused = Some(connection.open(81, "web:81").unwrap()); // 1 and 3
        let mut streams = Vec::new();
        for _ in 0..5 {
            streams.push(connection.open(80, "web:80").unwrap()); // 5 and 7, ..., 21 and 23
        }
        for id in [5, 7, 9, 11, 13, 15, 17, 19, 21, 23] {
            // SYN_REPLY; its headers, of which there are none, are not looked at.
            let head = [0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, id];
            server.send(|out| out.put_slice(&head)).await;
        }
        let request = refused.as_mut().unwrap();
        request.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        if app_leaves_first {
            server.data(1, b"connect: connection refused", false).await;
            request.read(&mut [0; 1]).await.unwrap_err();
            drop(refused.take());
        }
        refuse_without_reset(&mut server, 1, 3).await;
        settled(&connection, Fitness::Closed).await;
        assert!(connection.open(80, "web:80").is_none());
        // Of the others, the one whose bytes would wait behind the refused stream's fails...
        for (i, stream) in streams.iter_mut().enumerate() {
            let data = 4 * i as u32 + 7;
            let stuck = data % 5 == 3;
            assert_eq!(stream.write_all(b"x").await.is_err(), stuck, "{data}");
        }
        // ... and the connection goes with the last of them.
        drop((refused, streams));
        let ended = async { while server.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_refusal_before_a_byte_was_sent_leaves_nothing_behind() {
    let (connection, mut server, _tasks) = connected(4096);
    let mut stream = connection.open(81, "web:81").unwrap();
    refuse_without_reset(&mut server, 1, 3).await;
    stream.read(&mut [0; 1]).await.unwrap_err();
    drop(stream);
    assert_eq!(connection.fitness(), Fitness::Fit(0));
}

#[tokio::test]
async fn a_pod_that_hangs_up_on_a_sender_gets_no_more_and_ends_in_order() {
    let (connection, mut server, _tasks) = connected(64 << 10);
    let mut stream = connection.open(80, "web:80").unwrap();
    stream.write_all(b"a long upload").await.unwrap();
    server.data(3, b"too long", true).await;
    server.data(1, b"", true).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "too long");
    // Answered, so nothing is known to be left. What follows must not reach the server.
    stream.write_all(b"goes on").await.unwrap();
    drop(stream);
    connection.close();
    while let Some(frame) = server.next_but_pings().await {
        if let Frame::Data { payload, .. } = frame {
            assert_eq!(&payload[..], b"a long upload");
        }
    }

    let (connection, mut server, _tasks) = connected(64 << 10);
    let mut stream = connection.open(80, "web:80").unwrap();
    server.data(3, b"busy", false).await;
    stream.read_exact(&mut [0; 4]).await.unwrap();
    stream.write_all(b"unread").await.unwrap();
    server.data(3, b"", true).await;
    server.data(1, b"", true).await;
    settled(&connection, Fitness::Closed).await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}
