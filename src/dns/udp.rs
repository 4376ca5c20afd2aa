//! Questions by datagram.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::message::{MAX_UDP, Transport};
use super::zone::Zone;
use super::{MAX_REQUEST, Server, Step};
use crate::dial::DialRelay;
use crate::io::user::socket_may_resolve;

/// Datagrams that are taken at once before other tasks have their turn.
const BATCH: usize = 64;
/// Pause after an error of the socket that is not about one datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn serve<Z: Zone, T: DialRelay>(
    server: Arc<Server<Z, T>>,
    socket: Arc<UdpSocket>,
) {
    // One byte more than is taken, to tell what was cut.
    let mut request = vec![0; MAX_REQUEST + 1];
    let mut out = Vec::with_capacity(MAX_UDP);
    loop {
        let received = match socket.readable().await {
            Ok(()) => batch(&server, &socket, &mut request, &mut out),
            Err(error) => Err(error),
        };
        if let Err(error) = received {
            tracing::debug!(%error, "cannot receive");
            tokio::time::sleep(ERROR_PAUSE).await;
        }
        tokio::task::yield_now().await;
    }
}

fn batch<Z: Zone, T: DialRelay>(
    server: &Arc<Server<Z, T>>,
    socket: &Arc<UdpSocket>,
    request: &mut [u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    for _ in 0..BATCH {
        match socket.try_recv_from(request) {
            Ok((length, _)) if length == request.len() => {
                tracing::debug!("too long for a question")
            }
            // Whose it is is asked again for each: ports of datagrams change hands fast.
            Ok((_, peer)) if server.is_here(peer) && !socket_may_resolve(peer, server.address) => {}
            Ok((length, peer)) => received(server, socket, &request[..length], peer, out),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn received<Z: Zone, T: DialRelay>(
    server: &Arc<Server<Z, T>>,
    socket: &Arc<UdpSocket>,
    request: &[u8],
    peer: SocketAddr,
    out: &mut Vec<u8>,
) {
    match server.at_once(request, Transport::Udp, out) {
        Step::Answered => send(socket, out, peer),
        Step::Silence => {}
        Step::Wait(question) => {
            let Some(place) = server.place() else {
                Server::<Z, T>::too_busy(&question, request, Transport::Udp, out);
                return send(socket, out, peer);
            };
            let (server, socket) = (Arc::clone(server), Arc::clone(socket));
            let (request, tasks) = (request.to_vec(), server.tasks.clone());
            tasks.clone().spawn(async move {
                tokio::select! {
                    biased;
                    // Nobody waits for an answer from a server that ends.
                    () = tasks.draining() => {}
                    answer = server.in_time(&request, &question, Transport::Udp) => {
                        send(&socket, &answer, peer);
                    }
                }
                drop(place);
            });
        }
    }
}

/// Sends an answer, or not: a datagram may always be lost, and the client asks again.
fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, peer) {
        tracing::debug!(%peer, %error, "the answer is lost");
    }
}
