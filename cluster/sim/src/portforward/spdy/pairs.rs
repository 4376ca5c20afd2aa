//! The kubelet's part: two streams with one request id make one connection into the pod.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Connection;
use super::headers::Headers;
use super::stream::Stream;
use crate::portforward::copy::{Down, Up};

/// Whether a stream may be forwarded: a port from 1 to 65535 and one of the two types.
pub(super) fn is_acceptable(headers: &Headers) -> bool {
    port_of(headers).is_some_and(|port| port > 0)
        && matches!(
            headers.get("streamtype").map(String::as_str),
            Some("data" | "error")
        )
}

fn port_of(headers: &Headers) -> Option<u16> {
    headers.get("port")?.parse().ok()
}

/// Two halves on their way to each other.
struct Pair {
    data: Option<Arc<Stream>>,
    error: Option<Arc<Stream>>,
    deadline: Instant,
}

/// Pairs streams as they are accepted, for as long as the connection lives.
pub(super) async fn run<W>(
    connection: &Arc<Connection<W>>,
    mut accepted: mpsc::Receiver<Arc<Stream>>,
) where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    loop {
        let earliest = pairs.values().map(|pair| pair.deadline).min();
        let timeout = async {
            match earliest {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = accepted.recv() => match stream {
                Some(stream) => add(connection, &mut pairs, stream).await,
                None => return,
            },
            () = timeout => give_up(connection, &mut pairs).await,
        }
    }
}

async fn add<W>(
    connection: &Arc<Connection<W>>,
    pairs: &mut HashMap<String, Pair>,
    stream: Arc<Stream>,
) where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let is_data = stream
        .headers
        .get("streamtype")
        .is_some_and(|kind| kind == "data");
    let request = request_id(&stream, is_data);
    let timeout = connection.forward.habits.pair_timeout;
    let pair = pairs.entry(request.clone()).or_insert_with(|| Pair {
        data: None,
        error: None,
        deadline: Instant::now() + timeout,
    });
    let (kind, half) = if is_data {
        ("data", &mut pair.data)
    } else {
        ("error", &mut pair.error)
    };
    if half.is_some() {
        let message = format!(
            "error processing stream for request {request}: {kind} stream already assigned"
        );
        complain(connection, pair.error.clone(), message);
        return;
    }
    *half = Some(stream);
    if pair.data.is_some()
        && pair.error.is_some()
        && let Some(Pair {
            data: Some(data),
            error: Some(error),
            ..
        }) = pairs.remove(&request)
    {
        let shared = connection.clone();
        let node = connection.forward.world.node.clone();
        node.spawn(async move { forward(shared, data, error).await });
    }
}

/// Clients that send no request id open the error stream just before the data stream.
fn request_id(stream: &Stream, is_data: bool) -> String {
    let given = stream.headers.get("requestid").filter(|id| !id.is_empty());
    given.cloned().unwrap_or_else(|| {
        let id = if is_data {
            stream.id.saturating_sub(2)
        } else {
            stream.id
        };
        id.to_string()
    })
}

async fn give_up<W>(connection: &Arc<Connection<W>>, pairs: &mut HashMap<String, Pair>)
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let now = Instant::now();
    let late: Vec<String> = pairs
        .iter()
        .filter(|(_, p)| p.deadline <= now)
        .map(|(id, _)| id.clone())
        .collect();
    for request in late {
        let error = pairs.remove(&request).and_then(|pair| pair.error);
        let text = format!("(conn=sim, request={request}) timed out waiting for streams");
        complain(connection, error, text);
    }
}

/// Puts a text on an error stream, without holding up the pairing of others.
fn complain<W>(connection: &Arc<Connection<W>>, error: Option<Arc<Stream>>, text: String)
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let Some(error) = error else { return };
    let shared = connection.clone();
    connection.forward.world.node.spawn(async move {
        // It fails only when nobody is left to read it.
        let _ = shared.write(&error, text.as_bytes()).await;
    });
}

/// One connection into the pod, from dial to the last frame.
async fn forward<W>(connection: Arc<Connection<W>>, data: Arc<Stream>, error: Arc<Stream>)
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let counted = connection.forward.world.counters.streams.enter();
    let (Some(port), Some(mut up)) = (port_of(&data.headers), data.reader()) else {
        return;
    };
    let mut down = Outgoing {
        connection: connection.clone(),
        stream: data.clone(),
    };
    let forwarded = connection.forward.connect(port, &mut up, &mut down).await;
    drop(counted);
    match forwarded {
        Ok(()) => {
            connection.finish(&data).await;
            connection.finish(&error).await;
            // The runtime's copy from the client still waits. It takes one more frame, finds the
            // pod's socket closed, and ends.
            let _ = up.next().await;
        }
        Err(text) => {
            connection.finish(&data).await;
            // A failed write has no reader.
            let _ = connection.write(&error, text.as_bytes()).await;
            if connection.forward.habits.old_runtime {
                connection.finish(&error).await;
            } else {
                // The data stream has told its end already, so of it nothing more is sent; but what
                // still comes for it holds up nobody.
                connection.reset(&data).await;
                connection.reset(&error).await;
            }
        }
    }
    // Frames that come after this are read by nobody and hold up their worker for good, unless
    // the stream was reset. That is what the real ones do.
    data.abandon(up);
}

/// The data stream, towards the client.
struct Outgoing<W> {
    connection: Arc<Connection<W>>,
    stream: Arc<Stream>,
}

impl<W> Down for Outgoing<W>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.write(&self.stream, bytes).await
    }
}
