//! Streams and flows that come by a tunnel, each of which says where it shall go.

use std::sync::Arc;

use super::Config;
use super::conn::Session;
use super::stats::Counted;
use crate::addr::Target;
use crate::dial::{self, Dial, DialError, DialUdp, FLOW_IDLE, Flow, Room};
use crate::task::Tasks;
use crate::tunnel::{Incoming, Protocol, Stream};

/// Bytes of the datagrams that fit no frame of Ethernet, of all flows together.
const LARGE: usize = 4 << 20;

/// Serves them.
pub struct Tunnelled<D> {
    session: Arc<Session<D>>,
    large: Room,
}

impl<D> Clone for Tunnelled<D> {
    fn clone(&self) -> Self {
        Self {
            session: self.session.clone(),
            large: self.large.clone(),
        }
    }
}

impl<D: Dial + DialUdp> Tunnelled<D> {
    /// Those that dial by `dial`; who may is not asked. What outlives a stream lives in `tasks`.
    pub fn new(dial: D, config: Config, tasks: &Tasks) -> Self {
        Self {
            session: Arc::new(Session::new(dial, config, tasks.clone())),
            large: Room::new(LARGE),
        }
    }

    /// Serves one to its end; it goes to `target`, whatever it says itself.
    pub async fn serve(&self, mut incoming: Incoming, target: &Target) {
        let session = &*self.session;
        match incoming.protocol {
            Protocol::Tcp => {
                let _live = session.config.stats.connection();
                let dialled = tokio::select! {
                    dialled = session.dial(target) => dialled,
                    () = incoming.abandoned() => return,
                };
                match dialled {
                    Ok(dialled) => {
                        if let Ok(stream) = incoming.accept() {
                            let stream = Counted::new(stream, session.config.stats.clone());
                            session.join(stream, dialled).await;
                        }
                    }
                    Err(error) => incoming.refuse(&error),
                }
            }
            Protocol::Udp => match session.dial.dial_udp(target).await {
                Ok(flow) => {
                    if let Ok(stream) = incoming.accept() {
                        self.join(stream, flow).await;
                    }
                }
                Err(error) => incoming.refuse(&error),
            },
            Protocol::Control => incoming.refuse(&DialError::Forbidden {
                target: target.to_string(),
                reason: "this tunnel has no control stream".to_owned(),
            }),
        }
    }

    /// Joins a flow of the tunnel with another one.
    async fn join(&self, stream: Stream, flow: Flow) {
        let stream = Flow::capsules(stream, self.large.clone());
        dial::join(stream, flow, FLOW_IDLE, &self.large).await;
    }
}
