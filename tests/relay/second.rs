//! HTTP/2 without TLS, stream by stream, as gRPC uses it.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use kdev::rule::control::{Ask, Tell};
use kdev::rule::{AppProtocol, Condition};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::support::*;

/// A gRPC-like server: `/echo` sends each message back at once and ends with trailers, `/refuse`
/// answers with trailers alone, `/reset` resets, `/wait` waits for ever, all others end.
async fn grpc(listener: TcpListener, name: &'static str) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(socket).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(name, request, respond));
            }
        });
    }
}

fn trailers(name: &str, status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("x-server", name.parse().unwrap());
    trailers
}

async fn serve(
    name: &'static str,
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    assert_eq!(
        request.headers().get("te").map(|v| v.as_bytes()),
        Some(&b"trailers"[..])
    );
    assert_eq!(request.uri().authority().unwrap().as_str(), "web.shop:80");
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-server", name);
    match path.as_str() {
        "/refuse" => {
            let mut response = head.body(()).unwrap();
            response.headers_mut().extend(trailers(name, "7"));
            respond.send_response(response, true).unwrap();
        }
        "/reset" => respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM),
        "/wait" => {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            WAITED.add_permits(1);
        }
        _ => {
            let mut send = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
                send_all(&mut send, data).await;
            }
            let _ = send.send_trailers(trailers(name, "0"));
        }
    }
}

/// How many requests of `/wait` were taken back.
static WAITED: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);

/// Sends as the other side takes it.
async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else {
            return;
        };
        let chunk = data.split_to(room.min(data.len()));
        if send.send_data(chunk, false).is_err() {
            return;
        }
    }
}

async fn caller(stage: &Stage) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(stage.caller().await).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

fn request(path: &str, user: &str) -> Request<()> {
    Request::post(format!("http://web.shop:80{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("x-user", user)
        .body(())
        .unwrap()
}

/// One message there and back; the server that answered.
async fn unary(send: &SendRequest<Bytes>, path: &str, user: &str) -> (String, HeaderMap) {
    let mut send = send.clone().ready().await.unwrap();
    let (answer, mut stream) = send.send_request(request(path, user), false).unwrap();
    send_all(&mut stream, Bytes::from_static(b"hello")).await;
    // Whoever has answered already wants no more.
    let _ = stream.send_data(Bytes::new(), true);
    let response = timeout(Duration::from_secs(10), answer)
        .await
        .unwrap()
        .unwrap();
    let server = response.headers()["x-server"].to_str().unwrap().to_owned();
    let head = response.headers().clone();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        assert_eq!(data.unwrap(), "hello");
    }
    let trailers = body.trailers().await.unwrap().unwrap_or(head);
    (server, trailers)
}

async fn stage(protocol: AppProtocol) -> (Stage, Kdev) {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(grpc(pods, "pods"));
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut ann = stage.kdev("ann", local.local_addr().unwrap()).await;
    tokio::spawn(grpc(local, "ann"));
    let mut claim = ann.claim("ann", &[Condition::header("x-user: ann").unwrap()]);
    claim.protocol = protocol;
    ann.attach(claim).await;
    (stage, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_connection_go_where_their_metadata_say() {
    for protocol in [AppProtocol::Auto, AppProtocol::Grpc] {
        let (stage, ann) = stage(protocol).await;
        let send = caller(&stage).await;
        for _ in 0..30 {
            for (user, server) in [("ann", "ann"), ("eve", "pods")] {
                let (who, trailers) = unary(&send, "/echo", user).await;
                assert_eq!(who, server);
                assert_eq!(trailers["grpc-status"], "0");
                let (who, trailers) = unary(&send, "/refuse", user).await;
                assert_eq!(
                    (who.as_str(), &trailers["grpc-status"]),
                    (server, &"7".parse().unwrap())
                );
            }
        }
        let seen = ann.callers.lock().unwrap().clone();
        let second = seen
            .iter()
            .filter(|c| c.speaks == kdev::tunnel::Speaks::H2)
            .count();
        assert_eq!(second, 1, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_both_ways_at_once_and_large_ones_wait_for_their_readers() {
    let (stage, _ann) = stage(AppProtocol::Grpc).await;
    let send = caller(&stage).await;
    for user in ["ann", "eve"] {
        let mut send = send.clone().ready().await.unwrap();
        let (answer, mut stream) = send.send_request(request("/echo", user), false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        for n in 0..20 {
            let text = Bytes::from(format!("message {n}"));
            send_all(&mut stream, text.clone()).await;
            let back = timeout(Duration::from_secs(5), body.data())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            body.flow_control().release_capacity(back.len()).unwrap();
            assert_eq!(back, text);
        }
        let large = Bytes::from(vec![7; 5 << 20]);
        let sending = async {
            send_all(&mut stream, large.clone()).await;
            stream.send_data(Bytes::new(), true).unwrap();
        };
        let receiving = async {
            let mut read = 0;
            while let Some(data) = body.data().await {
                let n = data.unwrap().len();
                body.flow_control().release_capacity(n).unwrap();
                read += n;
            }
            read
        };
        let ((), read) = tokio::join!(sending, receiving);
        assert_eq!(read, large.len());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_is_given_up_all_the_way_and_resets_come_back() {
    let (stage, _ann) = stage(AppProtocol::Grpc).await;
    let send = caller(&stage).await;
    for user in ["ann", "eve"] {
        let mut one = send.clone().ready().await.unwrap();
        let (answer, stream) = one.send_request(request("/wait", user), false).unwrap();
        assert!(timeout(Duration::from_millis(200), answer).await.is_err());
        drop(stream);
        let told = timeout(Duration::from_secs(5), WAITED.acquire()).await;
        told.expect("the server was not told").unwrap().forget();
        let mut one = send.clone().ready().await.unwrap();
        let (answer, _) = one.send_request(request("/reset", user), true).unwrap();
        let answer = timeout(Duration::from_secs(5), answer).await.unwrap();
        assert!(answer.is_err() || answer.unwrap().status() == 502);
    }
    assert_eq!(unary(&send, "/echo", "ann").await.0, "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_its_settings_first_is_no_other_protocol() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    // With the settings of a server, before anybody has said anything.
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let (mut socket, _) = pods.accept().await.unwrap();
            socket
                .write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100])
                .await
                .unwrap();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while socket.read_buf(&mut read).await.unwrap_or(0) > 0 {
                    assert!(read.starts_with(b"PRI * HTTP/2.0") || read.len() < 14);
                }
            });
        }
    });
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut ann = stage.kdev("ann", local.local_addr().unwrap()).await;
    tokio::spawn(grpc(local, "ann"));
    ann.mine("ann").await;
    // The caller takes its time.
    let socket = stage.caller().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    assert_eq!(unary(&send, "/echo", "ann").await.0, "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_a_goaway_that_loses_nothing() {
    let (stage, mut ann) = stage(AppProtocol::Grpc).await;
    let mut send = caller(&stage).await;
    let mut one = send.clone().ready().await.unwrap();
    let (answer, mut stream) = one.send_request(request("/echo", "eve"), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let port = ann.port;
    ann.ask(&Ask::Detach {
        port,
        id: "ann".to_owned(),
    })
    .await;
    let told = ann.ask(&Ask::Retire { port }).await;
    assert_eq!(told, Tell::Retired { port, open: 1 });
    // What runs goes on to its end.
    tokio::time::sleep(Duration::from_millis(200)).await;
    send_all(&mut stream, Bytes::from_static(b"hello")).await;
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "hello");
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    // And the caller opens no more here.
    let more = async {
        loop {
            match send.clone().ready().await {
                Ok(next) => send = next,
                Err(_) => return,
            }
            if send.send_request(request("/echo", "eve"), true).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), more).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_or_silent_is_an_answer() {
    let stage = Stage::set_up().await;
    let pods = TcpListener::bind((LOCAL, stage.first)).await.unwrap();
    tokio::spawn(grpc(pods, "pods"));
    let mut ann = stage.kdev("ann", nobody().await).await;
    let condition = |user: &str| Condition::header(&format!("x-user: {user}")).unwrap();
    let mut claim = ann.claim("ann", &[condition("ann")]);
    claim.protocol = AppProtocol::Grpc;
    ann.attach(claim.clone()).await;
    (claim.id, claim.fallback) = ("fall".to_owned(), true);
    claim.conditions = kdev::rule::Conditions::new(vec![condition("fall")]).unwrap();
    ann.attach(claim).await;
    let send = caller(&stage).await;
    let status = async |user: &str| {
        let mut one = send.clone().ready().await.unwrap();
        let (answer, _) = one.send_request(request("/echo", user), true).unwrap();
        timeout(Duration::from_secs(5), answer)
            .await
            .unwrap()
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(status("ann").await, 502);
    assert_eq!(unary(&send, "/echo", "fall").await.0, "pods");
    let mut strict = ann.claim("strict", &[condition("strict")]);
    (strict.protocol, strict.strict) = (AppProtocol::Grpc, true);
    ann.attach(strict).await;
    ann.kill();
    assert_eq!(status("strict").await, 503);
    for user in ["ann", "fall"] {
        let (server, head) = unary(&send, "/echo", user).await;
        assert_eq!(server, "pods", "{head:?}");
    }
}

/// A request with so many bytes in its headers.
async fn large(send: &SendRequest<Bytes>, bytes: usize) -> Response<RecvStream> {
    let mut request = request("/echo", "ann");
    for (n, size) in [bytes / 2, bytes - bytes / 2].into_iter().enumerate() {
        let name = format!("x-large-{n}").parse::<http::HeaderName>().unwrap();
        let value = "v".repeat(size).parse().unwrap();
        request.headers_mut().insert(name, value);
    }
    let mut one = send.clone().ready().await.unwrap();
    let (answer, _) = one.send_request(request, true).unwrap();
    let answer = timeout(Duration::from_secs(5), answer).await.unwrap();
    answer.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused_alone() {
    let stage = Stage::set_up().await;
    let local = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut ann = stage.kdev("ann", local.local_addr().unwrap()).await;
    tokio::spawn(grpc(local, "ann"));
    ann.mine("ann").await;
    let send = caller(&stage).await;
    for bytes in [100, 60_000, 70_000, 15_000, 70_000, 60_000] {
        let response = large(&send, bytes).await;
        let (status, server) = (
            response.status().as_u16(),
            response.headers().get("x-server"),
        );
        match bytes {
            70_000 => assert_eq!(status, 431),
            _ => assert_eq!(server.unwrap(), "ann", "{bytes}: {status}"),
        }
    }
}
