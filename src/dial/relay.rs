//! What it means to open a stream from inside the cluster.

use std::future::Future;

use super::DialError;
use crate::addr::Target;
use crate::io::{BoxIo, Io};

/// The host that stands for the nameservers of the relay's pod, whatever port is named with it.
/// No other host can have the name (RFC 6761, 6.4).
pub const NAMESERVERS: &str = "nameservers.kdev.invalid";

/// When a dial through the relay is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At once: the destination is known to be there, so its first bytes may travel with the
    /// opening. A late refusal is an error of the first read, as [`super::Dial::dial`] says.
    AtOnce,
    /// When the relay has said whether the destination took the connection.
    Awaited,
}

/// No relay, in a place that takes one.
#[derive(Clone, Copy, Debug)]
pub enum NoRelay {}

impl DialRelay for NoRelay {
    type Io = BoxIo;

    fn usable(&self) -> bool {
        match *self {}
    }

    fn hopeless(&self) -> Option<DialError> {
        match *self {}
    }

    async fn dial_relay(&self, _: &Target, _: Answer) -> Result<BoxIo, DialError> {
        match *self {}
    }

    async fn dial_relay_udp(&self, _: &Target) -> Result<BoxIo, DialError> {
        match *self {}
    }
}

/// Opens streams from inside the cluster, to whatever a pod there reaches.
pub trait DialRelay: Clone + Send + Sync + 'static {
    /// The stream it opens.
    type Io: Io;

    /// Whether a dial would find a tunnel now. One that finds none waits for it, bounded in time.
    fn usable(&self) -> bool;

    /// Why waiting for it is of no use, where that is so: there is none, or somebody has to do
    /// something first.
    fn hopeless(&self) -> Option<DialError>;

    /// Completes when it is known whether there is a relay, or that cannot be found out soon:
    /// what [`DialRelay::hopeless`] says before is said in ignorance.
    fn settled(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Opens a stream to `target`, whose name the relay resolves. Dropping the future abandons
    /// the attempt and frees the stream.
    fn dial_relay(
        &self,
        target: &Target,
        answer: Answer,
    ) -> impl Future<Output = Result<Self::Io, DialError>> + Send;

    /// Opens a UDP flow to `target`: a stream of datagram capsules (RFC 9297, RFC 9298). It is
    /// answered at once, so that the first datagram travels with the opening. Both ends drop it
    /// when it was idle for long.
    fn dial_relay_udp(
        &self,
        target: &Target,
    ) -> impl Future<Output = Result<Self::Io, DialError>> + Send;
}
