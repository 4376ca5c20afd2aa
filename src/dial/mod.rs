//! What it means to open a stream: the seams [`Dial`] and [`Resolve`], the reasons a dial fails,
//! and the [`Router`] that decides between the cluster and the laptop's own network.

mod error;
mod http_io;
mod laptop;
mod routes;

use std::future::Future;

pub use self::error::DialError;
pub use self::http_io::{HttpIo, LoginRefused, Via};
pub use self::laptop::{LAPTOP_DIAL_TIMEOUT, Laptop};
pub use self::routes::{Routes, RoutesError, Rule, Side};
use crate::addr::{Namespaced, Target};
use crate::io::{BoxIo, Io};

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
    fn resolve(&self, target: &Target) -> Resolution;

    /// Asks the cluster about a `target` that [`Resolve::resolve`] called [`Resolution::Unknown`].
    /// Bounded in time; dropping the future abandons the question.
    fn learn(&self, target: &Target) -> impl Future<Output = Resolution> + Send;
}

/// What a destination means in the cluster.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// Not the cluster's: dial it from the laptop.
    Elsewhere,
    /// Pods that are ready for it, at least one.
    Pods(Endpoints),
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

/// Sends each dial to the cluster or to the laptop's own network.
#[derive(Clone, Debug)]
pub struct Router<R, P, L> {
    resolve: R,
    pods: P,
    laptop: L,
}

impl<R: Resolve, P: DialPods, L: Dial> Router<R, P, L> {
    /// What `resolve` finds in the cluster goes through `pods`, all else through `laptop`.
    pub fn new(resolve: R, pods: P, laptop: L) -> Self {
        Self {
            resolve,
            pods,
            laptop,
        }
    }
}

impl<R: Resolve, P: DialPods, L: Dial> Dial for Router<R, P, L> {
    type Io = BoxIo;

    async fn dial(&self, target: &Target) -> Result<BoxIo, DialError> {
        match self.dial_cluster(target).await? {
            Some(io) => Ok(Box::new(io)),
            None => Ok(Box::new(self.laptop.dial(target).await?)),
        }
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<BoxIo>, DialError> {
        match self.dial_cluster(target).await? {
            Some(io) => Ok(HttpIo::direct(Box::new(io))),
            None => {
                let HttpIo { io, via } = self.laptop.dial_http(target).await?;
                let io: BoxIo = Box::new(io);
                Ok(HttpIo { io, via })
            }
        }
    }
}

impl<R: Resolve, P: DialPods, L: Dial> Router<R, P, L> {
    /// A stream into the cluster; none where `target` is the laptop's to dial.
    async fn dial_cluster(&self, target: &Target) -> Result<Option<P::Io>, DialError> {
        let resolution = match self.resolve.resolve(target) {
            Resolution::Unknown => self.resolve.learn(target).await,
            known => known,
        };
        match resolution {
            Resolution::Pods(endpoints) => Ok(Some(self.pods.dial_pods(target, &endpoints).await?)),
            Resolution::Elsewhere | Resolution::Unknown => Ok(None),
            Resolution::Failed(error) => Err(error),
        }
    }
}
