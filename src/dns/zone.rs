//! What the cluster's DNS is asked for and what it has: the seam to the catalog.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Namespaced, Protocol};

/// Knows what is in the cluster.
pub trait Zone: Clone + Send + Sync + 'static {
    /// The cluster's DNS domain, lower-case, without the final dot.
    fn domain(&self) -> &str;

    /// The namespace of bare Service names.
    fn namespace(&self) -> &str;

    /// What is known about `subject`, from a snapshot: never waits.
    fn find(&self, subject: &Subject) -> Found;

    /// Whether asking the cluster about a name that may well be a public one is right: its
    /// namespace is one that the user works with. Asking about any other would tell the cluster
    /// which names the laptop looks up.
    fn may_ask(&self, namespace: &str) -> bool;

    /// Asks the cluster about what [`Zone::find`] called [`Found::Unknown`]. Bounded in time;
    /// dropping the future abandons the question.
    fn learn(&self, subject: &Subject) -> impl Future<Output = Found> + Send;
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A namespace, which has no records and makes the names below it possible.
    Namespace(String),
    /// A Service.
    Service(Namespaced),
    /// The endpoints of a Service that bear this host name.
    Endpoint(Namespaced, String),
    /// Whoever has this address.
    Address(IpAddr),
}

/// What is known about a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such thing.
    Absent,
    /// Not in the snapshot, which may be incomplete.
    Unknown,
    /// It could not be found out, and why.
    Failed(String),
    /// The namespace exists.
    Namespace,
    /// The Service; for [`Subject::Endpoint`] as a headless one with only those endpoints.
    Service(Service),
    /// The owner of an address: its names below the cluster's domain, none for a pod that is
    /// behind no Service.
    Owner(Vec<String>),
}

/// A Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// One with addresses of its own.
    Cluster {
        /// Of either family.
        ips: Vec<IpAddr>,
        /// The Service's ports.
        ports: Vec<Port>,
    },
    /// One that stands for its endpoints, the ready ones or those that count as such.
    Headless(Vec<Endpoint>),
    /// An alias of another name (ExternalName), or of an address.
    Alias(String),
}

/// A port of a Service or of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the Service; may be empty.
    pub name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The number; `None` for all ports, as an EndpointSlice may say.
    pub number: Option<u16>,
}

/// An endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host name; without one each address with dashes is a name.
    pub host: Option<Arc<str>>,
    /// Its addresses, of the Service's families.
    pub ips: Vec<IpAddr>,
    /// The Service's ports as this endpoint has them; none where the Service has none.
    pub ports: Vec<Port>,
}

/// An address as a label: `10-244-0-5`, `fd00--5`. As CoreDNS has it, no label ends with a dash:
/// `fd00::` is `fd00--0`.
#[must_use]
pub fn dashed(ip: IpAddr) -> String {
    // A mapped IPv4 address would have dots in its text.
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string().replace('.', "-"),
        IpAddr::V6(ip) => {
            let mut label = ip.to_string().replace(':', "-");
            if label.ends_with('-') {
                label.push('0');
            }
            label
        }
    }
}
