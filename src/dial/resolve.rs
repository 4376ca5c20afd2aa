//! What a destination means in the cluster.

use std::future::Future;

use super::{DialError, Notes};
use crate::addr::{Names, Namespaced, Protocol, Target};

/// What a dial wants of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The destination.
    pub target: &'a Target,
    /// How its name is to be read.
    pub names: Names,
    /// What is to be spoken with it.
    pub protocol: Protocol,
}

impl<'a> Wanted<'a> {
    /// A TCP connection of an app.
    #[must_use]
    pub fn tcp(target: &'a Target) -> Self {
        Self {
            target,
            names: Names::Relative,
            protocol: Protocol::Tcp,
        }
    }
}

/// Answers what a destination means in the cluster.
pub trait Resolve: Clone + Send + Sync + 'static {
    /// What `wanted` means right now, from a snapshot: never waits.
    fn resolve_as(&self, wanted: Wanted<'_>, notes: &mut Notes) -> Resolution;

    /// Asks the cluster about what [`Resolve::resolve_as`] called [`Resolution::Unknown`].
    /// Bounded in time; dropping the future abandons the question.
    fn learn_as(
        &self,
        wanted: Wanted<'_>,
        notes: &mut Notes,
    ) -> impl Future<Output = Resolution> + Send;

    /// What is wrong with a name that neither the cluster nor the laptop knows, as far as the
    /// cluster can tell; nothing where it most likely is none of the cluster's. Bounded in time.
    fn hint(&self, _: &Target) -> impl Future<Output = Option<String>> + Send {
        async { None }
    }

    /// [`Resolve::resolve_as`] for a TCP connection of an app.
    fn resolve(&self, target: &Target) -> Resolution {
        self.resolve_as(Wanted::tcp(target), &mut Notes::off())
    }

    /// [`Resolve::learn_as`] for a TCP connection of an app.
    fn learn(&self, target: &Target) -> impl Future<Output = Resolution> + Send {
        async { self.learn_as(Wanted::tcp(target), &mut Notes::off()).await }
    }
}

/// What a destination means in the cluster.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// Not the cluster's: dial it from the laptop.
    Elsewhere,
    /// Pods that are ready for it, at least one.
    Pods(Endpoints),
    /// The cluster's, and only who is inside reaches it.
    Inside {
        /// What to dial there.
        inside: Inside,
        /// Why nobody else does.
        why: DialError,
    },
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
    /// What to dial from inside the cluster.
    pub inside: Inside,
}

/// What to dial from inside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Where, each as good as the others: a Service's own address, which the cluster balances,
    /// else one for each ready endpoint, or a name that only the cluster knows.
    pub targets: Vec<Target>,
    /// Whether somebody is known to be ready there, on a port that is declared.
    pub known: bool,
}

impl Inside {
    /// A destination of which nothing is known but its name or address.
    #[must_use]
    pub fn unknown(target: Target) -> Self {
        Self {
            targets: vec![target],
            known: false,
        }
    }
}

/// A port of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodPort {
    /// The pod.
    pub pod: Namespaced,
    /// The pod's UID: a StatefulSet's next pod of the same name is another one.
    pub uid: String,
    /// The port in the pod.
    pub port: u16,
}
