//! Questions about names: all go to kdev, which knows the cluster's names and the laptop's resolvers.

use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tracing::debug;

use super::catching::Uncounted;
use super::upward::Upward;
use crate::addr::{Host, Target};
use crate::dial::{Count as _, Ends, Flows, NAMESERVERS, receive_from};
use crate::io::{Io as _, accept_each};
use crate::task::Tasks;

/// The port of nameservers.
const PORT: u16 = 53;
/// Connections with questions at a time: as many as kdev's own DNS server takes.
const MAX_QUESTIONS: usize = 128;

/// Passes on what comes to `tcp` and `udp`, until `tasks` drain.
pub(super) fn serve(tcp: TcpListener, udp: UdpSocket, upward: &Upward, tasks: &Tasks) {
    let by = upward.clone();
    tasks.spawn(accept_each(
        tcp,
        MAX_QUESTIONS,
        tasks.clone(),
        move |mut stream, _| {
            let by = by.clone();
            async move {
                match by.stream(&nameservers()).await {
                    Ok(opened) => opened.join(stream).await,
                    Err(_) => stream.reset(),
                }
            }
        },
    ));
    tasks.spawn(datagrams(udp, upward.clone(), tasks.clone()));
}

/// What kdev's own nameserver is called here.
fn nameservers() -> Target {
    Target::new(Host::Name(NAMESERVERS.to_owned()), PORT)
}

async fn datagrams(socket: UdpSocket, upward: Upward, tasks: Tasks) {
    let mut flows = Flows::new(socket, upward, Arc::new(Uncounted), tasks.child());
    let socket = flows.socket.clone();
    let receiving = async {
        loop {
            let received = receive_from(&socket, |question, client| {
                let passed = flows.pass(&client, question, || {
                    let ends = Ends {
                        target: nameservers(),
                        client,
                        header: Box::default(),
                        from: None,
                    };
                    Ok((client, ends))
                });
                if let Err(why) = passed {
                    Uncounted.dropped();
                    debug!(%client, why, "dropped a question");
                }
            });
            if let Err(error) = received.await {
                return error;
            }
        }
    };
    tokio::select! {
        () = tasks.draining() => {}
        error = receiving => debug!(%error, "the socket for names broke"),
    }
    flows.kill();
}
