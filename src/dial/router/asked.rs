//! Streams that tell their failures of what was asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::DialError;
use crate::addr::Target;
use crate::io::{BoxIo, Io, pass_writes};

/// A stream to an address that was dialled for a name: a refusal that comes late, as an error of
/// its first read, names what was asked for.
struct Asked<T> {
    io: T,
    target: Target,
}

/// `io`, which was opened to `dialled` for who asked for `target`.
pub(super) fn asked<T: Io>(io: T, dialled: &Target, target: &Target) -> BoxIo {
    match dialled == target {
        true => Box::new(io),
        false => Box::new(Asked {
            io,
            target: target.clone(),
        }),
    }
}

impl<T> Asked<T> {
    fn told<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        result.map_err(|error| match DialError::from_io(&error) {
            Some(cause) => cause.clone().of(&self.target).into_io(),
            None => error,
        })
    }
}

impl<T: Io> Io for Asked<T> {
    fn reset(&mut self) {
        self.io.reset();
    }
}

impl<T: Io> AsyncRead for Asked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.told(read)
    }
}

impl<T: Io> AsyncWrite for Asked<T> {
    pass_writes!(io, told);
}
