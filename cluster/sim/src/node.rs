//! Pods as their node knows them: an address, a sandbox, and what answers a dial.

use std::future::Future;
use std::io;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::counters::Gauge;
use crate::pod::{Backend, Phase, Pod};
use crate::stream::{self, RuntimeEnd};
use crate::task::Tasks;

/// One pod on the node.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) pod: Pod,
    /// Seconds of grace, once the pod is on its way out.
    pub(crate) terminating: Option<u64>,
    pub(crate) sandbox: String,
    pub(crate) connections: Gauge,
    ip: String,
    started: String,
    gone: CancellationToken,
}

impl Running {
    /// Starts a pod; `number` makes its sandbox unlike any other.
    pub(crate) fn new(pod: Pod, ip: String, number: u64) -> Self {
        Self {
            pod,
            terminating: None,
            sandbox: format!("{:064x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15),
            connections: Gauge::default(),
            ip,
            started: clock::now(),
            gone: CancellationToken::new(),
        }
    }

    /// The pod as the API shows it.
    pub(crate) fn object(&self) -> Value {
        self.pod.object(&self.ip, &self.started, self.terminating)
    }

    pub(crate) fn set_ready(&mut self, ready: bool) {
        self.pod.ready = ready && self.pod.phase == Phase::Running;
    }

    /// Ends every connection into the pod; later ones are as good as before.
    pub(crate) fn cut(&mut self) {
        std::mem::take(&mut self.gone).cancel();
    }

    /// Connects to a port as the container runtime does: `localhost` in the pod's network.
    pub(crate) async fn dial(&self, port: u16, tasks: &Tasks) -> Result<RuntimeEnd, DialError> {
        let backend = self.pod.backend(port).ok_or(DialError::Refused(port))?;
        let (pod_end, runtime_end) = stream::pair();
        match backend {
            Backend::Serve(serve) => self.serve(tasks, serve(pod_end)),
            Backend::Address(address) => {
                let dialled = TcpStream::connect(address).await;
                let socket = dialled.map_err(|_| DialError::Refused(port))?;
                // Only latency is at stake, and only in tests.
                let _ = socket.set_nodelay(true);
                self.serve(tasks, stream::join(pod_end, socket));
            }
        }
        Ok(runtime_end)
    }

    fn serve(&self, tasks: &Tasks, work: impl Future<Output = ()> + Send + 'static) {
        let held = self.connections.enter();
        let gone = self.gone.clone();
        tasks.spawn(async move {
            gone.run_until_cancelled(work).await;
            drop(held);
        });
    }
}

/// Why a forward into a pod failed.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The pod is gone, and its network with it.
    NoNetwork,
    Refused(u16),
    /// An established connection broke.
    Broken(u16, io::Error),
}

impl DialError {
    /// The container runtime's words for it.
    pub(crate) fn text(&self, sandbox: &str) -> String {
        let within = "failed to execute portforward in network namespace \
                      \"/var/run/netns/cni-5d0f0a00-0000-4000-8000-000000000000\"";
        match self {
            Self::NoNetwork => format!("network namespace for sandbox \"{sandbox}\" is closed"),
            Self::Refused(port) => format!(
                "{within}: failed to connect to localhost:{port} inside namespace \"{sandbox}\", \
                 IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused IPv6 dial tcp6: \
                 address localhost: no suitable address found "
            ),
            Self::Broken(port, error) => {
                format!("{within}: read tcp4 127.0.0.1:40000->127.0.0.1:{port}: {error}")
            }
        }
    }
}
