//! Opens the stream under a tunnel, by the carrier of the user's choice or the best that works.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::carrier::Carrier;
use super::secret::RoleSecret;
use crate::addr::Namespaced;
use crate::dial::DialError;
use crate::io::Io;
use crate::k8s::portforward::{Form, PodStream, PortForward};
use crate::k8s::{Catalog, Client, UpgradeError, access};
use crate::tunnel::pool::{Carried, Transport, Trouble};
use crate::tunnel::{POD_TUNNEL_PORT, Role, TUNNEL_PORT, UPGRADE_PROTOCOL};

/// Opens streams to the tunnel ports of one namespace's relay.
pub(super) struct ToRelay {
    client: Client,
    pods: PortForward,
    namespace: String,
    secret: RoleSecret,
    choice: Choice,
}

/// Which carrier to take.
pub(super) enum Choice {
    /// This one.
    Only(Carrier),
    /// Whatever form of port-forward works.
    Forward,
    /// The best that works: `pods/proxy` where the relay's pod declares its port, since the way
    /// is shorter; then a SPDY stream, which carries uploads at twice the rate of
    /// `v4.channel.k8s.io`; and that where nothing else is let through.
    Best(Catalog),
}

impl ToRelay {
    pub(super) fn new(
        client: Client,
        pods: PortForward,
        namespace: String,
        choice: Choice,
        role: Role,
    ) -> Self {
        Self {
            secret: RoleSecret::new(client.clone(), namespace.clone(), role),
            client,
            pods,
            namespace,
            choice,
        }
    }

    async fn carry(&self, replica: &str) -> Result<(CarrierStream, &'static str), Trouble> {
        let pod = Namespaced::new(&*self.namespace, replica);
        let carrier = match &self.choice {
            Choice::Only(carrier) => *carrier,
            Choice::Forward => return self.by_forward(&pod, &Form::ALL).await,
            Choice::Best(catalog) => {
                if catalog.declares(&pod, POD_TUNNEL_PORT) {
                    match self.by_proxy(&pod).await {
                        Err(trouble) if !is_of_the_cluster(&trouble) => {
                            let error = trouble.error;
                            tracing::debug!(%error, "pods/proxy carries no tunnel");
                        }
                        result => return result,
                    }
                }
                return self.by_forward(&pod, &Form::ALL).await;
            }
        };
        match carrier {
            Carrier::PodsProxy => self.by_proxy(&pod).await,
            Carrier::WebSocket => self.by_forward(&pod, &[Form::V4]).await,
            Carrier::Spdy => {
                let spdy = [Form::Tunnel, Form::Spdy, Form::SpdyGet];
                self.by_forward(&pod, &spdy).await
            }
        }
    }

    async fn by_forward(
        &self,
        pod: &Namespaced,
        forms: &[Form],
    ) -> Result<(CarrierStream, &'static str), Trouble> {
        let (stream, form) = self.pods.dedicated(pod, TUNNEL_PORT, forms).await?;
        Ok((CarrierStream::Forward(stream), form.id()))
    }

    async fn by_proxy(&self, pod: &Namespaced) -> Result<(CarrierStream, &'static str), Trouble> {
        let Namespaced { namespace, name } = pod;
        let uri = format!("/api/v1/namespaces/{namespace}/pods/{name}:{POD_TUNNEL_PORT}/proxy/");
        let mut request = Request::new(());
        // Names come from the API server, which admits DNS labels only.
        *request.uri_mut() = uri
            .parse::<Uri>()
            .expect("object names are valid in a path");
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
        match self.client.upgrade(request).await {
            // hyper has read the 101 by now, before which nothing may be sent.
            Ok(upgrade) => Ok((CarrierStream::Proxy(upgrade.io), Carrier::PodsProxy.id())),
            Err(error) => Err(explain(error, pod)),
        }
    }
}

/// Whether another way would fail too.
fn is_of_the_cluster(trouble: &Trouble) -> bool {
    matches!(trouble.error, DialError::Cluster { .. })
}

fn explain(error: UpgradeError, pod: &Namespaced) -> Trouble {
    match error {
        UpgradeError::Network(reason) | UpgradeError::Busy(reason) => {
            Trouble::passing(DialError::Cluster {
                reason,
                fix: String::new(),
            })
        }
        UpgradeError::Credentials(reason) => Trouble::lasting(DialError::Cluster {
            reason,
            fix: String::new(),
        }),
        UpgradeError::Status {
            code: 403, message, ..
        } => Trouble::lasting(access::denied(
            &message,
            "get",
            "pods/proxy",
            &pod.namespace,
        )),
        error => Trouble::passing(DialError::Unreachable {
            target: format!("relay {} by pods/proxy", pod.name),
            reason: error.to_string(),
            fix: String::new(),
        }),
    }
}

impl Transport for ToRelay {
    type Io = CarrierStream;

    async fn open(&self, replica: &str) -> Result<Carried<CarrierStream>, Trouble> {
        let (secret, (io, carrier)) = tokio::try_join!(self.secret.get(), self.carry(replica))?;
        Ok(Carried {
            io,
            secret,
            carrier,
        })
    }
}

/// The stream under a tunnel.
pub(super) enum CarrierStream {
    Forward(PodStream),
    Proxy(TokioIo<Upgraded>),
}

impl Io for CarrierStream {}

impl AsyncRead for CarrierStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Forward(io) => Pin::new(io).poll_read(cx, buf),
            Self::Proxy(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for CarrierStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Forward(io) => Pin::new(io).poll_write(cx, buf),
            Self::Proxy(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Forward(io) => Pin::new(io).poll_flush(cx),
            Self::Proxy(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Forward(io) => Pin::new(io).poll_shutdown(cx),
            Self::Proxy(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Forward(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Proxy(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Forward(io) => io.is_write_vectored(),
            Self::Proxy(io) => io.is_write_vectored(),
        }
    }
}
