//! Dials what was decided.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::{
    Answer, Dial, DialError, DialPods, DialRelay, DialUdp, Flow, HttpIo, Inside, Mark, Notes, Path,
    Resolve, Room, Router,
};
use super::asked::asked as told_of;
use super::decision::{Decision, Way, explain, no_stream};
use crate::addr::{Host, Protocol, Target};
use crate::io::{BoxIo, datagram};

/// Bytes that a large datagram of a flow may take: one is on the way at a time.
const LARGE: usize = datagram::MAX_PAYLOAD + 2 * datagram::MAX_HEAD;

impl<R: Resolve, P: DialPods, L: Dial, T: DialRelay> Dial for Router<R, P, L, T> {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        let began = Instant::now();
        let decision = self.decide(target, &mut Notes::off()).await;
        let opened = self.stream(target, decision).await;
        let (path, io) = self.told(target, opened)?;
        Ok(self.observer.watch(target, path, began, io))
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<BoxIo>, DialError> {
        let began = Instant::now();
        let decision = self.decide(target, &mut Notes::off()).await;
        let opened = match decision.way {
            // An HTTP proxy goes by the name in the request, which is none outside of the cluster.
            Way::Laptop if decision.aliases.is_empty() => {
                match self.laptop.dial_http(&decision.target).await {
                    Ok(HttpIo { io, via, mark }) => {
                        let io: BoxIo = Box::new(io);
                        Ok((Path::Laptop(decision.target), HttpIo { io, via, mark }))
                    }
                    Err(error) => Err(self.outside(error, &decision).await),
                }
            }
            _ => {
                // As it is before the stream is opened: what has changed by then may not yet be so
                // where it leads.
                let mark = self.marker.of(&decision);
                let opened = self.stream(target, decision).await;
                opened.map(|(path, io)| {
                    (
                        path,
                        HttpIo {
                            io,
                            via: None,
                            mark,
                        },
                    )
                })
            }
        };
        let (path, HttpIo { io, via, mark }) = self.told(target, opened)?;
        let io = self.observer.watch(target, path, began, io);
        Ok(HttpIo { io, via, mark })
    }

    fn mark(&self, target: &Target) -> Option<Mark> {
        self.marked(target)
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
        let opened = match &decision.way {
            Way::Relay(inside, _) => match self.relayed(target, inside) {
                Ok((relay, inside)) => match relay.dial_relay_udp(inside).await {
                    Ok(io) => Ok(Flow::capsules(io, Room::new(LARGE))),
                    Err(error) => Err(error.of(target)),
                },
                Err(error) => Err(error),
            },
            Way::Laptop => match self.laptop.dial_udp(&decision.target).await {
                Ok(flow) => Ok(flow),
                Err(error) => Err(self.outside(error, &decision).await),
            },
            Way::Failed(error) => Err(error.clone()),
            // No decision about datagrams.
            Way::Cluster(_) => Err(no_stream(target, Protocol::Udp)),
        };
        self.told(target, opened)
    }
}

impl<R: Resolve, P: DialPods, L: Dial, T: DialRelay> Router<R, P, L, T> {
    /// What was opened; where nothing was, whoever observes hears of it.
    fn told<O>(&self, target: &Target, opened: Result<O, DialError>) -> Result<O, DialError> {
        opened.inspect_err(|error| self.observer.failed(target, error))
    }

    /// The failure of a dial from the laptop. A name that nobody knows may be meant for the
    /// cluster, which can tell what is wrong with it there.
    async fn outside(&self, error: DialError, decision: &Decision) -> DialError {
        let mut error = explain(error, &decision.aliases);
        if let DialError::NotFound { fix, .. } = &mut error
            && decision.aliases.is_empty()
            && matches!(decision.target.host, Host::Name(_))
            && let Some(hint) = self.resolve.hint(&decision.target).await
        {
            *fix = hint;
        }
        error
    }

    async fn stream(&self, asked: &Target, decision: Decision) -> Result<(Path, BoxIo), DialError> {
        match decision.way {
            Way::Relay(inside, _) => self.through_relay(asked, &inside).await,
            Way::Cluster(endpoints) => {
                match self.pods.dial_pods(&decision.target, &endpoints).await {
                    Ok(io) => {
                        let pod = P::pod_of(&io).cloned();
                        Ok((Path::Pod(pod), told_of(io, &decision.target, asked)))
                    }
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
            Way::Laptop => match self.laptop.dial(&decision.target).await {
                Ok(io) => Ok((Path::Laptop(decision.target), Box::new(io))),
                Err(error) => Err(self.outside(error, &decision).await),
            },
        }
    }

    fn has_relay(&self) -> bool {
        self.via != super::Via::Direct
            && self
                .relay
                .as_ref()
                .is_some_and(|relay| relay.hopeless().is_none())
    }

    async fn through_relay(
        &self,
        asked: &Target,
        inside: &Inside,
    ) -> Result<(Path, BoxIo), DialError> {
        let (relay, target) = self.relayed(asked, inside)?;
        let answer = match inside.known {
            true => Answer::AtOnce,
            false => Answer::Awaited,
        };
        match relay.dial_relay(target, answer).await {
            Ok(io) => Ok((Path::Relay(target.clone()), told_of(io, target, asked))),
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
