//! A simulated Kubernetes cluster on loopback: as much of the API as kdev uses, with the real
//! servers' habits and with faults on demand.
//!
//! It must not depend on kdev: an oracle that shares our code agrees with our bugs.
//!
//! ```text
//! cluster      SimCluster: start, objects, faults, counters, stop
//! server       port, TLS, connections    link     the network in between, with its faults
//! api/         who asks, may they, discovery, get, list, watch, reviews, create, apply, patch, delete
//! portforward/ the three wire forms: tunnel, SPDY (spdy/), v4; pairing and copying
//! controller   Deployments: ReplicaSets, pods, what is deleted with its owner
//! kubelet      pods of Deployments from their template to running programs   program   those programs
//! proxy        Services at an address of this machine, for programs that dial by themselves
//! made         what such a pod looks like    quota, policy   what is refused    fields   who set which field
//! world        the state and its changes    node   pods at work    store   objects, changes
//! endpoints    what selectors amount to                         rbac     users and rules
//! shop         a ready-made small shop for the demo and for tests     crowd  a large cluster
//! ```

mod api;
mod clock;
mod cluster;
mod controller;
mod counters;
pub mod crowd;
mod endpoints;
mod families;
mod faults;
mod fields;
mod http;
mod kubelet;
mod link;
mod made;
mod node;
mod options;
mod pod;
mod policy;
mod portforward;
mod program;
mod proxy;
mod quota;
mod rbac;
mod resources;
mod server;
mod service;
pub mod shop;
mod store;
mod stream;
mod task;
mod tls;
mod world;

pub use self::cluster::SimCluster;
pub use self::counters::{Counts, Form, PodCounts};
pub use self::families::Families;
pub use self::faults::{Faults, TurnAway};
pub use self::options::{Habits, Options};
pub use self::pod::{Phase, Pod};
pub use self::program::{Container, Exit};
pub use self::rbac::{Rule, User};
pub use self::service::Service;
pub use self::stream::SimStream;
