//! SPDY inside a WebSocket: binary messages are slices of the SPDY bytes, their borders mean
//! nothing. The API server unpacks them and speaks SPDY to the node.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;

use super::wire::Ended;
use super::{Forward, spdy, ws};

/// What the API server reads from the node at once: one message each.
const CHUNK: usize = 32 * 1024;

/// The API server's buffers between WebSocket and node.
const BETWEEN: usize = 64 * 1024;

pub(super) async fn serve<IO>(io: IO, forward: Arc<Forward>)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from_client, to_client) = tokio::io::split(io);
    let to_client = Mutex::new(to_client);
    let (node, api) = tokio::io::duplex(BETWEEN);
    let (from_node, mut to_node) = tokio::io::split(api);
    let world = forward.world.clone();

    let up = async {
        let mut from_client = BufReader::with_capacity(BETWEEN, from_client);
        // Whatever ended the client's side, the node's side is told no more than that it ended.
        let _ = unpack(&mut from_client, &mut to_node, &to_client, &world).await;
        let _ = to_node.shutdown().await;
    };
    let down = async {
        let (ended, _) = tokio::join!(spdy::serve(node, forward), pack(from_node, &to_client));
        ended
    };
    tokio::pin!(up, down);
    let ended = tokio::select! {
        ended = &mut down => {
            if ended == Ended::Closed {
                // The real API server cannot close while it reads from the client: the client
                // learns that the node is gone when its next message has nowhere to go.
                up.await;
            }
            ended
        }
        () = &mut up => down.await,
    };
    if ended == Ended::Closed {
        let mut client = to_client.lock().await;
        // The client may have left already.
        let _ = client.write_all(&ws::normal_close()).await;
        let _ = client.shutdown().await;
    }
}

async fn unpack<R, N, C>(
    from: &mut R,
    to_node: &mut N,
    to_client: &Mutex<C>,
    world: &crate::world::World,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    N: AsyncWrite + Unpin,
    C: AsyncWrite + Unpin,
{
    while let Some(frame) = ws::read(from).await? {
        match frame.opcode {
            // Continuations too: how a message is cut up means nothing here.
            ws::BINARY | 0 => to_node.write_all(&frame.payload).await?,
            ws::PING if world.faults.api().deaf_to_pings => {}
            ws::PING => send(to_client, &ws::encode(ws::PONG, &frame.payload)).await?,
            ws::PONG => {}
            _ => break,
        }
    }
    Ok(())
}

async fn pack<R, C>(mut from: R, to_client: &Mutex<C>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    C: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            read => send(to_client, &ws::encode(ws::BINARY, &buffer[..read])).await?,
        }
    }
}

async fn send<C: AsyncWrite + Unpin>(to: &Mutex<C>, frame: &[u8]) -> io::Result<()> {
    let mut to = to.lock().await;
    to.write_all(frame).await?;
    to.flush().await
}
