//! What is no protocol at all.

use tokio::io::AsyncWriteExt;

use super::support::{Proxy, read_all, within};

/// 60 kinds of what a listener may get from a scanner, a wrong client or a broken one.
fn garbage() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b""[..],
        b"\0",
        b"\xff",
        b"\x05",
        b"\x05\x00",
        b"\x05\x01",
        b"\x05\xff",
        b"\x05\x01\x05",
        b"\x05\x01\x00\x05",
        b"\x05\x01\x00\x05\x01\x00",
        b"\x05\x01\x00\x04\x01\x00\x01\x00\x00\x00\x00\x00\x50",
        b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50",
        b"\x05\x01\x00\x05\x01\x00\x03\xff",
        b"\x05\x01\x00\x05\x01\x00\x03\x03\xff\xfe\xfd\x00\x50",
        b"\x05\x01\x00\x05\x01\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x05\x01\x00\x05\x01\x00\x7f\x00\x00\x00\x00\x00\x00",
        b"\x05\x01\x02\x01\x00\x00",
        b"\x05\x01\x02\x01\x01u\x00",
        b"\x05\x01\x02\x02\x01u\x01p",
        b"\x05\x01\x02\xff\xff\xff\xff",
        b"\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05",
        b"\x04",
        b"\x04\x01",
        b"\x04\x01\x00\x50\x00\x00\x00\x01",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",
        b"\x04\x09\x00\x50\x01\x02\x03\x04\x00",
        b"\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client hello of TLS",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10 a client hello of SSL 2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"GET",
        b"GET ",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
        b"GET http://a:99999/ HTTP/1.1\r\n\r\n",
        b"GET http://%00/ HTTP/1.1\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n: x\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nA: \0\r\n\r\n",
        b"GET http://a/ HTTP/1.1\nA: 1\n\n",
        b"get http://a/ http/1.1\r\n\r\n",
        b"CONNECT HTTP/1.1\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\n\r\n",
        b"CONNECT http://a/ HTTP/1.1\r\n\r\n",
        b"CONNECT a:b HTTP/1.1\r\n\r\n",
        b"CONNECT [::]:80:80 HTTP/1.1\r\n\r\n",
        b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"POST http://a/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\n",
        b"EHLO mail.example\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"{\"json\":true}\n",
    ]
    .iter()
    .map(|bytes| bytes.to_vec())
    .collect();
    all.push(vec![b'A'; 1 << 20]);
    all.push(vec![0; 1 << 20]);
    all.push([&b"GET / HTTP/1.1\r\n"[..], &vec![b'a'; 1 << 20]].concat());
    all.push(
        [
            &b"\x04\x01\x00\x50\x01\x02\x03\x04"[..],
            &vec![b'a'; 1 << 20],
        ]
        .concat(),
    );
    all.push((0..=255).cycle().take(1 << 16).collect());
    all
}

#[tokio::test]
async fn garbage_ends_in_a_clean_close() {
    let proxy = Proxy::start().await;
    assert!(garbage().len() >= 50);
    for bytes in garbage() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let mut stream = proxy.connect().await;
        let (mut read, mut write) = stream.split();
        // The proxy may end it before all is written.
        let sending = async {
            let _ = write.write_all(&bytes).await;
            let _ = write.shutdown().await;
        };
        let mut answer = Vec::new();
        let (_, ended) = within(async {
            tokio::join!(
                sending,
                tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer)
            )
        })
        .await;
        // Sending a megabyte to somebody who does not want it is cut off in the end.
        if bytes.len() < 1 << 16 {
            assert!(ended.is_ok(), "{shown:?}: {ended:?}");
        }
        assert!(answer.len() < 1024, "{shown:?}: {} bytes", answer.len());
    }
    proxy.quiet().await;
    assert_eq!(proxy.stats.snapshot().total, garbage().len() as u64);
    // It is as good as before.
    assert!(
        proxy
            .ask("GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .ends_with("ok\n")
    );
}

#[tokio::test]
async fn garbage_from_many_at_once_leaves_nothing_behind() {
    let proxy = Proxy::start().await;
    let mut apps = Vec::new();
    for bytes in garbage().into_iter().cycle().take(300) {
        let mut stream = proxy.connect().await;
        apps.push(async move {
            let _ = stream.write_all(&bytes[..bytes.len().min(1 << 12)]).await;
            let _ = stream.shutdown().await;
            read_all(&mut stream).await;
        });
    }
    within(futures_util::future::join_all(apps)).await;
    proxy.quiet().await;
}
