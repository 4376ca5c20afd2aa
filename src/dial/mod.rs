//! What it means to open a stream or a flow of datagrams: the seams, the reasons why that fails,
//! and the [`Router`] that decides between the relay, the pods and the laptop's own network.

mod answered;
#[cfg(target_os = "linux")]
mod caught;
pub(crate) mod connect;
mod error;
mod flow;
mod flows;
mod http_io;
mod laptop;
mod mark;
mod notes;
mod observe;
mod relay;
mod resolve;
mod router;
mod routes;
mod via;

use std::future::Future;

pub use self::answered::Answered;
#[cfg(target_os = "linux")]
pub use self::caught::{AnswersFrom, Caught, Meant};
pub use self::error::{DialError, NEEDS_RELAY};
pub use self::flow::{
    Activity, DialUdp, Flow, FlowReceiver, FlowSender, Room, Taken, join, receive_from,
};
pub use self::flows::{Answering, Count, Ends, FLOW_IDLE, Flows, MAX_FLOWS};
pub use self::http_io::{HttpIo, HttpProxy, LoginRefused};
pub use self::laptop::{LAPTOP_DIAL_TIMEOUT, Laptop, lookup};
pub use self::mark::{Mark, Marker, Standing};
pub use self::notes::Notes;
pub use self::observe::{Live, Observe, Path};
pub use self::relay::{Answer, DialRelay, NAMESERVERS, NoRelay};
pub use self::resolve::{Endpoints, Inside, PodPort, Resolution, Resolve, Wanted};
pub use self::router::{Alias, Decision, MAX_ALIASES, Router, Way};
pub use self::routes::{Routes, RoutesError, Rule, Side};
pub use self::via::Via;
use crate::addr::{Namespaced, Target};
use crate::io::Io;

/// Opens a byte stream to a destination.
pub trait Dial: Clone + Send + Sync + 'static {
    /// The stream it opens.
    type Io: Io;

    /// Opens a stream to `target`.
    ///
    /// A stream may be returned before the destination accepted it; then a late refusal is an
    /// error of its first read, of kind [`std::io::ErrorKind::ConnectionRefused`] with a
    /// [`DialError`] inside. Dropping the future abandons the attempt and frees the stream.
    fn dial(&self, target: &Target) -> impl Future<Output = Result<Self::Io, DialError>> + Send;

    /// Opens a stream for plain HTTP requests to `target`. It may lead to an HTTP proxy, which
    /// takes requests in another form.
    fn dial_http(
        &self,
        target: &Target,
    ) -> impl Future<Output = Result<HttpIo<Self::Io>, DialError>> + Send {
        async { Ok(HttpIo::direct(self.dial(target).await?)) }
    }

    /// What HTTP requests to `target` are to be marked with now; never waits. A stream that was opened
    /// before this came or went leads elsewhere.
    fn mark(&self, _: &Target) -> Option<Mark> {
        None
    }
}

/// Dials the pods that a destination means. The port-forward half of a [`Router`].
pub trait DialPods: Clone + Send + Sync + 'static {
    /// The stream it opens.
    type Io: Io;

    /// Opens a stream to one of `endpoints`, as [`Dial::dial`] does. `target` is what the app
    /// asked for, for messages.
    fn dial_pods(
        &self,
        target: &Target,
        endpoints: &Endpoints,
    ) -> impl Future<Output = Result<Self::Io, DialError>> + Send;

    /// The pod that a stream leads to, where the dialler knows.
    fn pod_of(_: &Self::Io) -> Option<&Namespaced> {
        None
    }
}
