//! Catching what programs send, until kdev is gone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::standing::Standing;
use super::upward::Upward;
use super::{FAILED, GREETING, READY, names};
use crate::addr::{Host, Target};
use crate::capture::container::{Network, Sockets, answering};
use crate::dial::{AnswersFrom, Caught, Count};
use crate::io::{Io as _, accept_each};
use crate::task::Tasks;
use crate::tunnel::{self, Budget};

/// How often is looked which networks the container is part of: an engine may add one any time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Connections at a time, as many as one tunnel carries.
const MAX_CONNECTIONS: usize = 16_384;
/// Bytes that the tunnel may have on the way to this side.
const BUDGET: u32 = 32 << 20;

/// Catches until kdev, which is at the other ends of the pipes `input` and `output`, is gone, and leaves
/// the network as it was.
///
/// # Errors
/// When they are no pipes, or kdev is gone before it begins.
pub async fn run(input: OwnedFd, output: OwnedFd) -> io::Result<()> {
    let mut standing = Standing::new(input, output)?;
    let (mut network, sockets) = match Network::make() {
        Ok(made) => made,
        Err(why) => return say(&mut standing, &format!("{FAILED} {why}")).await,
    };
    say(&mut standing, READY).await?;
    let share = Budget::new(BUDGET).share();
    let share = share.ok_or_else(|| io::Error::other("there is no room for a tunnel"))?;
    let (opener, driver) = tunnel::open(standing, share).await?;
    let tasks = Tasks::new();
    let upward = Upward::new(opener);
    serve(sockets, &upward, &tasks)?;
    drop(upward);
    tasks.spawn(async move {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Err(error) = network.look() {
                warn!(%error, "the rules cannot be changed");
            }
        }
    });
    let ended = driver.run().await;
    debug!(?ended, "kdev is gone");
    tasks.shutdown(Duration::ZERO).await;
    Ok(())
}

async fn say(standing: &mut Standing, text: &str) -> io::Result<()> {
    standing
        .write_all(format!("{GREETING} {text}\n").as_bytes())
        .await?;
    standing.flush().await
}

fn serve(sockets: Sockets, upward: &Upward, tasks: &Tasks) -> io::Result<()> {
    let Sockets {
        tcp,
        udp,
        dns_tcp,
        dns_udp,
    } = sockets;
    for listener in tcp {
        let upward = upward.clone();
        tasks.spawn(accept_each(
            listener_of(listener)?,
            MAX_CONNECTIONS,
            tasks.clone(),
            move |mut stream, _| {
                let upward = upward.clone();
                async move {
                    let Ok(address) = stream.local_addr() else {
                        return debug!("the program left at once");
                    };
                    // Fails only on a socket that is gone already; the first read says so.
                    let _ = stream.set_nodelay(true);
                    match upward.stream(&target(address)).await {
                        Ok(opened) => opened.join(stream).await,
                        Err(error) => {
                            debug!(%error, "not opened");
                            stream.reset();
                        }
                    }
                }
            },
        ));
    }
    let answers: AnswersFrom = Arc::new(|address| {
        Box::pin(async move {
            let socket = answering(address)?;
            UdpSocket::from_std(socket)
        })
    });
    for socket in udp {
        let caught = Caught::new(Arc::new(target), answers.clone());
        let serving = caught.serve(
            udp_of(socket)?,
            upward.clone(),
            Arc::new(Uncounted),
            tasks.clone(),
        );
        tasks.spawn(serving);
    }
    names::serve(listener_of(dns_tcp)?, udp_of(dns_udp)?, upward, tasks);
    Ok(())
}

fn target(address: SocketAddr) -> Target {
    Target::new(Host::Ip(address.ip().to_canonical()), address.port())
}

fn listener_of(socket: Socket) -> io::Result<TcpListener> {
    TcpListener::from_std(socket.into())
}

fn udp_of(socket: Socket) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket.into())
}

/// Counts nothing: kdev does.
pub(super) struct Uncounted;

impl Count for Uncounted {
    fn sent(&self, _: usize) {}

    fn received(&self, _: usize) {}

    fn dropped(&self) {}
}
