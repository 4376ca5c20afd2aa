//! What it means to open a stream: the seams [`Dial`] and [`Resolve`], the reasons a dial fails,
//! and the [`Router`] that decides between the cluster and the laptop's own network.

mod error;
mod http_io;
mod laptop;
mod notes;
mod relay;
mod router;
mod routes;
mod via;

use std::future::Future;

pub use self::error::DialError;
pub use self::http_io::{HttpIo, HttpProxy, LoginRefused};
pub use self::laptop::{LAPTOP_DIAL_TIMEOUT, Laptop, lookup};
pub use self::notes::Notes;
pub use self::relay::{Answer, DialRelay};
pub use self::router::{Alias, Decision, MAX_ALIASES, Router, Way};
pub use self::routes::{Routes, RoutesError, Rule, Side};
pub use self::via::Via;
use crate::addr::{Names, Namespaced, Target};
use crate::io::Io;

/// What is said of destinations that port-forward cannot reach.
pub const NEEDS_RELAY: &str =
    "only a relay in the cluster could reach it, and this version of kdev has none";

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
}

/// Answers what a destination means in the cluster.
pub trait Resolve: Clone + Send + Sync + 'static {
    /// What `target` means right now, from a snapshot: never waits.
    fn resolve_as(&self, target: &Target, names: Names, notes: &mut Notes) -> Resolution;

    /// Asks the cluster about a `target` that [`Resolve::resolve_as`] called
    /// [`Resolution::Unknown`]. Bounded in time; dropping the future abandons the question.
    fn learn_as(
        &self,
        target: &Target,
        names: Names,
        notes: &mut Notes,
    ) -> impl Future<Output = Resolution> + Send;

    /// [`Resolve::resolve_as`] for what an app asks for.
    fn resolve(&self, target: &Target) -> Resolution {
        self.resolve_as(target, Names::Relative, &mut Notes::off())
    }

    /// [`Resolve::learn_as`] for what an app asks for.
    fn learn(&self, target: &Target) -> impl Future<Output = Resolution> + Send {
        async {
            self.learn_as(target, Names::Relative, &mut Notes::off())
                .await
        }
    }
}

/// What a destination means in the cluster.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// Not the cluster's: dial it from the laptop.
    Elsewhere,
    /// Pods that are ready for it, at least one.
    Pods(Endpoints),
    /// An alias: the Service means whatever this name means.
    Alias {
        /// The Service.
        service: Namespaced,
        /// A DNS name that is complete as it stands, without the final dot.
        name: String,
    },
    /// The cluster's, and there is no way to it.
    Failed(DialError),
    /// Not in the snapshot, which may be incomplete.
    Unknown,
}

/// The ready pods behind a destination.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The Service that was named, or `None` when a pod was named itself.
    pub service: Option<Namespaced>,
    /// The pods, in no order.
    pub pods: Vec<PodPort>,
    /// Whether the port is one that the Service or the pod declares. An undeclared one may well
    /// be refused.
    pub declared: bool,
}

/// A port of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodPort {
    /// The pod.
    pub pod: Namespaced,
    /// The pod's UID: a StatefulSet's next pod of the same name is another one.
    pub uid: String,
    /// The TCP port in the pod.
    pub port: u16,
}

/// Dials the pods that a destination means. The cluster's half of a [`Router`].
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
}
