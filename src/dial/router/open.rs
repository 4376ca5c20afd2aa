//! Dials what was decided.

use std::sync::atomic::Ordering;

use super::super::{
    Answer, Dial, DialError, DialPods, DialRelay, DialUdp, Flow, HttpIo, Inside, Notes, Resolve,
    Room, Router,
};
use super::asked::asked as told_of;
use super::decision::{Decision, Way, explain, no_stream};
use crate::addr::{Protocol, Target};
use crate::io::{BoxIo, datagram};

/// Bytes that a large datagram of a flow may take: one is on the way at a time.
const LARGE: usize = datagram::MAX_PAYLOAD + 2 * datagram::MAX_HEAD;

impl<R: Resolve, P: DialPods, L: Dial, T: DialRelay> Dial for Router<R, P, L, T> {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        let decision = self.decide(target, &mut Notes::off()).await;
        match decision.way {
            Way::Laptop => self.laptop_stream(&decision).await,
            _ => self.cluster_stream(target, decision).await,
        }
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<BoxIo>, DialError> {
        let decision = self.decide(target, &mut Notes::off()).await;
        match decision.way {
            // An HTTP proxy goes by the name in the request, which is none outside of the cluster.
            Way::Laptop if !decision.aliases.is_empty() => {
                self.laptop_stream(&decision).await.map(HttpIo::direct)
            }
            Way::Laptop => {
                let HttpIo { io, via } = self.laptop.dial_http(&decision.target).await?;
                let io: BoxIo = Box::new(io);
                Ok(HttpIo { io, via })
            }
            _ => self
                .cluster_stream(target, decision)
                .await
                .map(HttpIo::direct),
        }
    }
}

impl<R, P, L, T> DialUdp for Router<R, P, L, T>
where
    R: Resolve,
    P: DialPods,
    L: Dial + DialUdp,
    T: DialRelay,
{
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        let notes = &mut Notes::off();
        let decision = self.decide_for(target, Protocol::Udp, notes).await;
        match decision.way {
            Way::Relay(inside, _) => {
                let (relay, inside) = self.relayed(target, &inside)?;
                match relay.dial_relay_udp(inside).await {
                    Ok(io) => Ok(Flow::capsules(io, Room::new(LARGE))),
                    Err(error) => Err(error.of(target)),
                }
            }
            Way::Laptop => {
                let opened = self.laptop.dial_udp(&decision.target).await;
                opened.map_err(|error| explain(error, &decision.aliases))
            }
            Way::Failed(error) => Err(error),
            // No decision about datagrams.
            Way::Cluster(_) => Err(no_stream(target, Protocol::Udp)),
        }
    }
}

impl<R: Resolve, P: DialPods, L: Dial, T: DialRelay> Router<R, P, L, T> {
    async fn laptop_stream(&self, decision: &Decision) -> Result<BoxIo, DialError> {
        match self.laptop.dial(&decision.target).await {
            Ok(io) => Ok(Box::new(io)),
            Err(error) => Err(explain(error, &decision.aliases)),
        }
    }

    async fn cluster_stream(&self, asked: &Target, decision: Decision) -> Result<BoxIo, DialError> {
        match decision.way {
            Way::Relay(inside, _) => self.through_relay(asked, &inside).await,
            Way::Cluster(endpoints) => {
                match self.pods.dial_pods(&decision.target, &endpoints).await {
                    Ok(io) => Ok(told_of(io, &decision.target, asked)),
                    // What port-forward may not, or cannot while the API server is away, a relay
                    // can that is there and will be back.
                    Err(error @ (DialError::Denied { .. } | DialError::Cluster { .. }))
                        if self.has_relay() =>
                    {
                        let relayed = self.through_relay(asked, &endpoints.inside).await;
                        relayed.map_err(|_| error)
                    }
                    Err(error) => Err(error),
                }
            }
            Way::Failed(error) => Err(error),
            Way::Laptop => self.laptop_stream(&decision).await,
        }
    }

    fn has_relay(&self) -> bool {
        self.via != super::Via::Direct
            && self
                .relay
                .as_ref()
                .is_some_and(|relay| relay.hopeless().is_none())
    }

    async fn through_relay(&self, asked: &Target, inside: &Inside) -> Result<BoxIo, DialError> {
        let (relay, target) = self.relayed(asked, inside)?;
        let answer = match inside.known {
            true => Answer::AtOnce,
            false => Answer::Awaited,
        };
        match relay.dial_relay(target, answer).await {
            Ok(io) => Ok(told_of(io, target, asked)),
            Err(error) => Err(error.of(asked)),
        }
    }

    /// The relay, and which of several equal destinations it dials next.
    fn relayed<'a>(
        &'a self,
        asked: &Target,
        inside: &'a Inside,
    ) -> Result<(&'a T, &'a Target), DialError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let target = inside.targets.get(turn % inside.targets.len().max(1));
        match (&self.relay, target) {
            (Some(relay), Some(target)) => Ok((relay, target)),
            _ => Err(super::no_relay(asked)),
        }
    }
}
