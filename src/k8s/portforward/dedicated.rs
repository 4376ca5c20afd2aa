//! A stream to a pod on a connection that nothing else uses: what a tunnel goes over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::form::Form;
use super::open::{OpenError, Opened, open};
use super::pool::PortForward;
use super::stream::PodStream;
use crate::addr::Namespaced;
use crate::dial::{DialError, PodPort};
use crate::io::Io;
use crate::tunnel::pool::Trouble;

/// A byte stream to a port of a pod. Dropping it closes the connection below.
#[derive(Debug)]
pub struct DedicatedStream {
    stream: PodStream,
    /// Where the connection could carry more than this stream.
    connection: Option<Connection>,
}

impl DedicatedStream {
    fn new(stream: PodStream, connection: Option<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl PortForward {
    /// Opens a stream to one port of one pod on a connection of its own, by the best of `forms`,
    /// and says which that was. It is in no count of [`PortForward::status`]. Bounded in time;
    /// dropping the future closes what it opened.
    pub async fn dedicated(
        &self,
        pod: &Namespaced,
        port: u16,
        forms: &[Form],
    ) -> Result<(DedicatedStream, Form), Trouble> {
        let (client, known, tasks) = (&self.inner.client, &self.inner.form, &self.inner.tasks);
        let at = PodPort {
            pod: pod.clone(),
            uid: String::new(),
            port,
        };
        let (target, counters) = (format!("port {port} of pod {}", pod.name), Arc::default());
        let opened = open(client, known, forms, &at, &target, &counters, tasks).await;
        let failed = |OpenError { error, passing }| Trouble { error, passing };
        match opened.map_err(failed)? {
            (Opened::Stream(stream), form) => Ok((DedicatedStream::new(stream, None), form)),
            (Opened::Connection(connection), form) => match connection.open(port, &target) {
                Some(stream) => Ok((DedicatedStream::new(stream, Some(connection)), form)),
                None => Err(Trouble::passing(DialError::Cluster {
                    reason: "a new connection was closed at once".to_owned(),
                    fix: String::new(),
                })),
            },
        }
    }
}

impl Drop for DedicatedStream {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.close();
        }
    }
}

impl Io for DedicatedStream {
    fn reset(&mut self) {
        self.stream.reset();
    }
}

impl AsyncRead for DedicatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for DedicatedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
