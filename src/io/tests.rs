use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

#[tokio::test]
async fn splice_passes_one_end_and_keeps_the_other_open() {
    let (mut app, a) = duplex(8);
    let (b, mut pod) = duplex(8);
    let joined = async { splice(a, b).await };
    let talk = async {
        app.write_all(b"all the question").await.unwrap();
        app.shutdown().await.unwrap();
        let mut asked = Vec::new();
        pod.read_to_end(&mut asked).await.unwrap();
        pod.write_all(b"an answer after the end").await.unwrap();
        pod.shutdown().await.unwrap();
        let mut answer = Vec::new();
        app.read_to_end(&mut answer).await.unwrap();
        (asked, answer)
    };
    // The writer needs a reader: the pipes hold eight bytes.
    let ((moved, result), (asked, answer)) = tokio::join!(joined, async {
        tokio::time::timeout(std::time::Duration::from_secs(5), talk)
            .await
            .unwrap()
    });
    result.unwrap();
    assert_eq!(asked, b"all the question");
    assert_eq!(answer, b"an answer after the end");
    assert_eq!(
        moved,
        Transferred {
            forth: 16,
            back: 23
        }
    );
}

#[tokio::test]
async fn a_failure_resets_a_tcp_peer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (a, _) = listener.accept().await.unwrap();
    let broken = broken_stream();
    let (_, result) = splice(a, broken).await;
    assert!(result.is_err());
    let error = app.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A stream that fails when it is read.
fn broken_stream() -> impl Io {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
        }
    }
    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    impl Io for Broken {}
    Broken
}

#[tokio::test]
async fn prefixed_gives_back_what_was_looked_at() {
    let (mut peer, inner) = duplex(64);
    peer.write_all(b" world").await.unwrap();
    drop(peer);
    let mut whole = Vec::new();
    Prefixed::new(bytes::Bytes::from_static(b"hello"), inner)
        .read_to_end(&mut whole)
        .await
        .unwrap();
    assert_eq!(whole, b"hello world");
}
