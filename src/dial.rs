//! What it means to open a stream: the seams [`Dial`] and [`Resolve`], the reasons a dial fails,
//! and the [`Router`] that decides between the cluster and the laptop's own network.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::addr::{Host, Namespaced, Target};
use crate::io::{BoxIo, Io};

/// Longest time that dialling from the laptop may take, unless the system gives up earlier.
pub const LAPTOP_DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Opens a byte stream to a destination.
pub trait Dial: Clone + Send + Sync + 'static {
    /// The stream it opens.
    type Io: Io;

    /// Opens a stream to `target`.
    ///
    /// A stream may be returned before the destination accepted it; then a late refusal is an
    /// error of its first read, of kind [`io::ErrorKind::ConnectionRefused`] with a
    /// [`DialError`] inside. Dropping the future abandons the attempt and frees the stream.
    fn dial(&self, target: &Target) -> impl Future<Output = Result<Self::Io, DialError>> + Send;
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

/// Why a stream could not be opened. The variants are the questions that callers ask: they are
/// matched exhaustively into SOCKS reply codes and HTTP statuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// No such host, Service or pod.
    #[error("{what} was not found{}", fix_suffix(.fix))]
    NotFound {
        /// What was looked for, for example `Service web in namespace shop`.
        what: String,
        /// What to do about it; may be empty.
        fix: String,
    },
    /// The host exists and nothing listens on the port.
    #[error("{target} refused the connection{}", reason_suffix(.reason))]
    Refused {
        /// The destination.
        target: String,
        /// What the other side said; may be empty.
        reason: String,
    },
    /// The host is known and cannot be reached: no ready pod, no route, no relay.
    #[error("{target} cannot be reached: {reason}{}", fix_suffix(.fix))]
    Unreachable {
        /// The destination.
        target: String,
        /// Why.
        reason: String,
        /// What to do about it; may be empty.
        fix: String,
    },
    /// Nobody answered in time.
    #[error("{target} did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// The destination.
        target: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Kubernetes does not allow it to this user.
    #[error(
        "not allowed to {verb} {resource} in namespace {namespace}: {message}; ask for the verb {verb:?} on {resource} (`kdev doctor` lists what is missing)"
    )]
    Denied {
        /// The verb, for example `create`.
        verb: String,
        /// The resource, for example `pods/portforward`.
        resource: String,
        /// The namespace.
        namespace: String,
        /// The API server's own words.
        message: String,
    },
    /// The rules of this session forbid it, for example a container that asks for the laptop.
    #[error("{target} is not allowed here: {reason}")]
    Forbidden {
        /// The destination.
        target: String,
        /// Which rule, and what lifts it.
        reason: String,
    },
    /// The way to the cluster is broken: API server, credentials, proxy.
    #[error("the cluster cannot be reached: {reason}{}", fix_suffix(.fix))]
    Cluster {
        /// Why.
        reason: String,
        /// What to do about it; may be empty.
        fix: String,
    },
}

fn fix_suffix(fix: &str) -> String {
    if fix.is_empty() {
        String::new()
    } else {
        format!("; {fix}")
    }
}

fn reason_suffix(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

impl DialError {
    /// Whether another pod of the same Service may do better: the failure belongs to one pod.
    #[must_use]
    pub fn is_of_one_pod(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::NotFound { .. } | Self::Unreachable { .. } => true,
            Self::TimedOut { .. }
            | Self::Denied { .. }
            | Self::Forbidden { .. }
            | Self::Cluster { .. } => false,
        }
    }

    /// The same failure as an I/O error of a stream that was handed out already.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        use io::ErrorKind;
        let kind = match &self {
            Self::NotFound { .. } | Self::Unreachable { .. } => ErrorKind::HostUnreachable,
            Self::Refused { .. } => ErrorKind::ConnectionRefused,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Denied { .. } | Self::Forbidden { .. } => ErrorKind::PermissionDenied,
            Self::Cluster { .. } => ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self)
    }

    /// The dial's failure inside an I/O error, where there is one.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
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
        let resolution = match self.resolve.resolve(target) {
            Resolution::Unknown => self.resolve.learn(target).await,
            known => known,
        };
        match resolution {
            Resolution::Pods(endpoints) => {
                let io = self.pods.dial_pods(target, &endpoints).await?;
                Ok(Box::new(io))
            }
            Resolution::Elsewhere | Resolution::Unknown => {
                Ok(Box::new(self.laptop.dial(target).await?))
            }
            Resolution::Failed(error) => Err(error),
        }
    }
}

/// Dials from the laptop, as any program on it would.
#[derive(Clone, Copy, Debug)]
pub struct Laptop {
    /// Whether the laptop's own loopback may be dialled. A container must not reach through kdev
    /// what its own network keeps from it.
    pub loopback: bool,
}

impl Dial for Laptop {
    type Io = TcpStream;

    async fn dial(&self, target: &Target) -> Result<TcpStream, DialError> {
        match tokio::time::timeout(LAPTOP_DIAL_TIMEOUT, self.connect(target)).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(target)),
        }
    }
}

impl Laptop {
    async fn connect(&self, target: &Target) -> Result<TcpStream, DialError> {
        let mut last = DialError::NotFound {
            what: format!("host {}", target.host),
            fix: "it is neither a Service that you may see in the cluster nor a name that this \
                  machine resolves"
                .to_owned(),
        };
        for addr in self.addresses(target).await {
            if !self.loopback && is_own(addr.ip()) {
                last = DialError::Forbidden {
                    target: target.to_string(),
                    reason: format!(
                        "{} is this machine's own loopback; --host-loopback opens it to containers",
                        addr.ip()
                    ),
                };
                continue;
            }
            match TcpStream::connect(addr).await {
                Ok(stream) => {
                    // Fails only on a socket that is gone already; the first read says so.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(e) => last = connect_error(target, &e),
            }
        }
        Err(last)
    }

    /// The addresses of the host in the system's order; none where it does not resolve.
    async fn addresses(&self, target: &Target) -> Vec<SocketAddr> {
        match &target.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, target.port)],
            Host::Name(name) => tokio::net::lookup_host((name.as_str(), target.port))
                .await
                .map(Iterator::collect)
                .unwrap_or_default(),
        }
    }
}

/// Whether connecting to `ip` stays on this machine whatever its interfaces are.
fn is_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

fn timed_out(target: &Target) -> DialError {
    DialError::TimedOut {
        target: target.to_string(),
        after: LAPTOP_DIAL_TIMEOUT,
    }
}

/// Names the cause of a failed connect in the words of [`DialError`].
fn connect_error(target: &Target, error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused {
            target: target.to_string(),
            reason: String::new(),
        },
        io::ErrorKind::TimedOut => timed_out(target),
        _ => DialError::Unreachable {
            target: target.to_string(),
            reason: error.to_string(),
            fix: String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_laptops_loopback_is_closed_to_containers_however_it_is_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let container = Laptop { loopback: false };
        for host in [
            "127.0.0.1",
            "127.8.8.8",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "localhost",
            "0.0.0.0",
        ] {
            let target = format!("{host}:{port}").parse().unwrap();
            let error = container.dial(&target).await.unwrap_err();
            assert!(
                matches!(error, DialError::Forbidden { .. }),
                "{host}: {error}"
            );
        }
        let target = format!("127.0.0.1:{port}").parse().unwrap();
        Laptop { loopback: true }.dial(&target).await.unwrap();
    }

    #[tokio::test]
    async fn failures_name_their_cause() {
        let laptop = Laptop { loopback: true };
        let refused = laptop
            .dial(&"127.0.0.1:1".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(refused, DialError::Refused { .. }), "{refused}");
        let unknown = laptop
            .dial(&"no-such-host.invalid:80".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(unknown, DialError::NotFound { .. }), "{unknown}");
        let io = refused.into_io();
        assert_eq!(io.kind(), io::ErrorKind::ConnectionRefused);
        assert!(DialError::from_io(&io).is_some());
    }
}
