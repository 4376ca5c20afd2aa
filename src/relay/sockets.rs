//! What the kernel may hold for the relay's connections.
//!
//! Control groups of version 2 count that against the pod's memory, and by itself a socket grows to
//! megabytes once somebody read fast: a thousand whose readers then stop would hold a gigabyte. So
//! each has a bound, which the kernel doubles for its own bookkeeping.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in each direction of one of the first connections: 50 Mbit/s over 20 ms, and whatever the
/// network gives within a cluster.
const ROOMY: u32 = 128 << 10;
/// How many of these there are at a time, of those to pods and those of streams together: 4 MiB if all
/// are stuck.
const ROOMY_PLACES: usize = 16;
/// Bytes in each direction of all further ones: still 50 MB/s over the 0.3 ms within a cluster, and
/// 32 MiB if a thousand are stuck.
const SNUG: u32 = 16 << 10;
/// Bytes in each direction of a tunnel. Its other end is on the same node or next to it, and the
/// tunnel has windows of its own for the rest of the way.
pub(super) const TUNNEL: u32 = 128 << 10;
/// Bytes in each direction of a caller's connection, which is one of the same cluster.
pub(super) const CALLER: u32 = 32 << 10;
/// Bytes on the way to one of the callers beyond the first ones: still 25 MB/s over the 0.3 ms within
/// a cluster.
const CALLER_SNUG: u32 = 8 << 10;
/// How many callers are the first ones.
const CALLERS_ROOMY: usize = 64;
/// Bytes in each direction of a probe's or scraper's.
pub(super) const PAGE: u32 = 16 << 10;
/// Connections that may wait to be accepted on one port: a burst of callers.
const ACCEPT_QUEUE: u32 = 1024;

/// Connects to wherever streams go. All clones share the places.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Arc<Semaphore>);

/// A roomy connection's place, or none for a snug one. It must live as long as its connection.
pub(super) type Place = Option<OwnedSemaphorePermit>;

impl Sockets {
    /// No connection has a place yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOMY_PLACES)))
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// As the system says.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<(TcpStream, Place)> {
        let place = self.0.clone().try_acquire_owned().ok();
        let bytes = if place.is_some() { ROOMY } else { SNUG };
        let stream = socket(address, bytes)?.connect(address).await?;
        // Fails only on a socket that is gone already.
        let _ = stream.set_nodelay(true);
        Ok((stream, place))
    }
}

/// Bytes that the kernel may hold in each direction of a connection at `place`.
pub(super) fn held(place: &Place) -> usize {
    let bytes = if place.is_some() { ROOMY } else { SNUG };
    2 * bytes as usize
}

/// Bounds what waits for callers. All clones share the places.
#[derive(Clone, Debug)]
pub(super) struct CallerSockets(Arc<Semaphore>);

impl CallerSockets {
    /// No caller has a place yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CALLERS_ROOMY)))
    }

    /// A place for a caller, and the bytes that the kernel may hold for it.
    pub(super) fn place(&self, caller: &TcpStream) -> (Place, usize) {
        let place = self.0.clone().try_acquire_owned().ok();
        if place.is_none() {
            // Fails only on a socket that is gone already. What it may receive was said when it was
            // opened, and stays.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(caller, CALLER_SNUG as usize);
        }
        let bytes = if place.is_some() { CALLER } else { CALLER_SNUG };
        (place, 2 * bytes as usize)
    }
}

/// A listener that can be bound again while connections of its predecessor still end, for
/// connections of `bytes` in each direction.
///
/// # Errors
/// When the port is taken.
pub(super) fn listener(address: SocketAddr, bytes: u32) -> io::Result<TcpListener> {
    let socket = socket(address, bytes)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_QUEUE)
}

fn socket(address: SocketAddr, bytes: u32) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Before it connects, since that decides how large its window can get.
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_connections_have_room_and_all_others_less() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listener(local, CALLER).unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Sockets::new();
        let held = |stream: &TcpStream| {
            let socket = socket2::SockRef::from(stream);
            let both = [socket.recv_buffer_size(), socket.send_buffer_size()];
            both.map(|bytes| bytes.unwrap() as u32)
        };
        let mut all = Vec::new();
        for place in 0..=ROOMY_PLACES {
            let (stream, held_place) = sockets.connect(address).await.unwrap();
            assert_eq!(held_place.is_some(), place < ROOMY_PLACES);
            // A machine may allow less than is asked for, but not so little.
            assert_eq!(held(&stream)[0] > 2 * SNUG, place < ROOMY_PLACES);
            all.push((stream, held_place));
        }
        assert_eq!(held(&all.pop().unwrap().0), [2 * SNUG; 2]);
        // One that ends leaves its place.
        all.pop();
        assert!(sockets.connect(address).await.unwrap().1.is_some());
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(held(&accepted), [2 * CALLER; 2]);
    }
}
