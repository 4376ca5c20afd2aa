//! An app that speaks HTTP/2 from the first byte, and writes down what it is asked.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::task::JoinSet;

/// What such an app says.
pub(super) const TWO: &str = "two";

/// A request: its path, its headers, and whether its body came to its end.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) whole: bool,
}

/// Starts one; gives its port and what it is asked.
pub(super) fn two() -> (u16, Arc<Mutex<Vec<Asked>>>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let port = listener.local_addr().unwrap().port();
    let all: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let record = all.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, record.clone()));
            }
        });
    });
    (port, all)
}

async fn serve(stream: tokio::net::TcpStream, record: Arc<Mutex<Vec<Asked>>>) {
    // A look whether somebody listens says nothing.
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut exchanges = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    exchanges.spawn(answer(request, respond, record.clone()));
                }
                _ => return,
            },
            Some(_) = exchanges.join_next() => {}
        }
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    record: Arc<Mutex<Vec<Asked>>>,
) {
    let (parts, mut body) = request.into_parts();
    let mut whole = true;
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => drop(body.flow_control().release_capacity(data.len())),
            Err(_) => whole = false,
        }
        if !whole {
            break;
        }
    }
    record.lock().unwrap().push(Asked {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        whole,
    });
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        // Whoever asked may have gone.
        let _ = stream.send_data(Bytes::from_static(TWO.as_bytes()), true);
    }
}
