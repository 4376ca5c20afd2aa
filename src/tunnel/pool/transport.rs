//! What a tunnel goes over, and which replicas of the relay there are.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use crate::dial::DialError;
use crate::io::Io;
use crate::tunnel::Secret;

/// Opens the one ordered byte stream under a tunnel.
pub trait Transport: Send + Sync + 'static {
    /// The stream.
    type Io: Io;

    /// Opens a fresh stream to the tunnel port of `replica`, on a connection of its own: nothing
    /// else shall stand in a tunnel's way. Bounded in time. Dropping the future abandons the
    /// attempt and closes what it opened; several attempts may run at once.
    fn open(
        &self,
        replica: &str,
    ) -> impl Future<Output = Result<Carried<Self::Io>, Trouble>> + Send;
}

/// A stream to a replica's tunnel port.
#[derive(Debug)]
pub struct Carried<T> {
    /// The stream, over which nothing has been said.
    pub io: T,
    /// What proves kdev to the relay, and the relay to kdev.
    pub secret: Secret,
    /// How it travels, for people.
    pub carrier: &'static str,
}

/// Why there is no tunnel to a replica.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The cause, as a dial fails with it.
    pub error: DialError,
    /// Whether the same attempt may succeed in a moment. Where not, somebody has to do something.
    pub passing: bool,
}

impl Trouble {
    /// One that time may heal.
    #[must_use]
    pub fn passing(error: DialError) -> Self {
        let passing = true;
        Self { error, passing }
    }

    /// One that somebody has to mend.
    #[must_use]
    pub fn lasting(error: DialError) -> Self {
        let passing = false;
        Self { error, passing }
    }
}

/// The replicas that a pool keeps tunnels to.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    /// Their names.
    pub names: BTreeSet<Arc<str>>,
    /// Why there are none; also `None` as long as nothing is known.
    pub none: Option<Trouble>,
}

impl Replicas {
    /// These, at least one.
    pub fn of<N: Into<Arc<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self {
            names: names.into_iter().map(Into::into).collect(),
            none: None,
        }
    }

    /// None, because of this.
    #[must_use]
    pub fn none(why: Trouble) -> Self {
        Self {
            names: BTreeSet::new(),
            none: Some(why),
        }
    }
}
