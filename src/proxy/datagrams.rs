//! Datagrams that come to one local port and all go to one destination, as `kdev forward` has
//! them: each sender has a flow of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tracing::debug;

use super::stats::Stats;
use crate::addr::Target;
use crate::dial::{Count as _, DialUdp, Ends, Flows, receive_from};
use crate::io::user::is_same_users_socket;
use crate::task::Tasks;

/// Serves `socket` until `tasks` shall end: everybody's datagrams, but on loopback only those of
/// the user that kdev runs as, and of root.
pub async fn serve_datagrams<D: DialUdp>(
    socket: UdpSocket,
    target: Target,
    dial: D,
    stats: Arc<Stats>,
    tasks: Tasks,
) {
    let Ok(local) = socket.local_addr() else {
        return debug!(%target, "the socket for datagrams is gone");
    };
    let may_send =
        move |from: SocketAddr| !from.ip().is_loopback() || is_same_users_socket(from, local);
    all_from(socket, target, dial, stats, tasks, may_send).await;
}

/// As [`serve_datagrams`], from whoever reaches `socket`.
#[cfg(target_os = "linux")]
pub(super) async fn all_to<D: DialUdp>(
    socket: UdpSocket,
    target: Target,
    dial: D,
    stats: Arc<Stats>,
    tasks: Tasks,
) {
    all_from(socket, target, dial, stats, tasks, |_| true).await;
}

async fn all_from<D: DialUdp>(
    socket: UdpSocket,
    target: Target,
    dial: D,
    stats: Arc<Stats>,
    tasks: Tasks,
    may_send: impl Fn(SocketAddr) -> bool,
) {
    let mut flows = Flows::new(socket, dial, stats.clone(), tasks.child());
    let socket = flows.socket.clone();
    let receiving = async {
        loop {
            let received = receive_from(&socket, |datagram, from| {
                let passed = flows.pass(&from, datagram, || match may_send(from) {
                    true => Ok(ends(&target, from)),
                    false => Err("it is of another user"),
                });
                if let Err(why) = passed {
                    stats.dropped();
                    debug!(%from, why, "dropped a datagram");
                }
            });
            if let Err(error) = received.await {
                return error;
            }
        }
    };
    tokio::select! {
        // Datagrams have nothing to finish.
        () = tasks.draining() => {}
        error = receiving => debug!(%target, %error, "the socket for datagrams broke"),
    }
    flows.kill();
}

/// The flow of a sender who is new.
fn ends(target: &Target, client: SocketAddr) -> (SocketAddr, Ends) {
    let ends = Ends {
        target: target.clone(),
        client,
        header: Box::default(),
        from: None,
    };
    (client, ends)
}
