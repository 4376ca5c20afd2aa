//! Standard input and output as one stream.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use crate::io::{Io, pass_writes};

/// Reads one pipe and writes another.
#[derive(Debug)]
pub(super) struct Standing {
    reads: pipe::Receiver,
    writes: pipe::Sender,
}

impl Standing {
    /// The stream of two pipes, which nothing else uses.
    pub(super) fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            reads: pipe::Receiver::from_owned_fd(input)?,
            writes: pipe::Sender::from_owned_fd(output)?,
        })
    }
}

impl Io for Standing {}

impl AsyncRead for Standing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reads).poll_read(cx, buf)
    }
}

impl AsyncWrite for Standing {
    pass_writes!(writes);
}
