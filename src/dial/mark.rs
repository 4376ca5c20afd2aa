//! Requests that are to say whose they are, because the port of a Service that they go to tells them
//! apart by that.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use crate::addr::Namespaced;

/// Knows which Services' requests are to say whose they are, and has them say it.
pub trait Marker: Send + Sync + 'static {
    /// Whether there is any such Service now: all else is only asked then.
    fn any(&self) -> bool;

    /// Whether requests to this port of a Service are to be marked now, and for how long that is so.
    fn standing(&self, service: &Namespaced, port: u16) -> Option<Standing>;

    /// Marks a request to it, unless it says already whose it is.
    fn mark(&self, service: &Namespaced, port: u16, headers: &mut HeaderMap);
}

/// How long a Service has led to whoever tells its requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// For so short that a connection may still lead to where it led before.
    New,
    /// For long enough that new connections lead there.
    Settled,
}

/// What requests on a connection to a Service's port are marked with.
#[derive(Clone)]
pub struct Mark {
    marker: Arc<dyn Marker>,
    service: Namespaced,
    port: u16,
    standing: Standing,
}

impl Mark {
    /// The mark of a Service's port as `marker` has it now.
    pub(super) fn of(marker: &Arc<dyn Marker>, service: &Namespaced, port: u16) -> Option<Self> {
        Some(Self {
            standing: marker.standing(service, port)?,
            marker: marker.clone(),
            service: service.clone(),
            port,
        })
    }

    /// Marks a request.
    pub fn add(&self, headers: &mut HeaderMap) {
        self.marker.mark(&self.service, self.port, headers);
    }
}

/// Whether a connection of the one serves requests of the other: it leads to the same, as far as is
/// known.
impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        self.standing == other.standing && self.port == other.port && self.service == other.service
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, .. } = self;
        write!(f, "Mark({service}:{port}, {:?})", self.standing)
    }
}
