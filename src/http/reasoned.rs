//! What a caller is told whose head hyper refuses: it answers by a status alone, which says neither
//! who refuses nor why.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ERROR_HEADER, Failure, MAX_HEAD};
use crate::io::{Io, text::lines};

/// By what hyper refuses heads.
const REFUSALS: [StatusCode; 3] = [
    StatusCode::BAD_REQUEST,
    StatusCode::URI_TOO_LONG,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];
/// What follows the first line of such a refusal.
const BARE: &str = "\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Longer than any of them.
const LONGEST: usize = 128;

/// Says why a head was refused by a status; `None` leaves it at that.
pub type Words = fn(StatusCode) -> Option<Failure>;

/// A stream on which hyper's bare refusal goes out with its reason.
#[derive(Debug)]
pub struct Reasoned<T> {
    inner: T,
    words: Words,
    /// What was refused.
    refused: Option<Failure>,
    /// What is still to be written in the place of a refusal.
    instead: Bytes,
}

impl<T> Reasoned<T> {
    /// One that says `words`.
    pub fn new(inner: T, words: Words) -> Self {
        Self {
            inner,
            words,
            refused: None,
            instead: Bytes::new(),
        }
    }

    /// The stream itself.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The same, to change it.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The same, when HTTP has ended on it.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// What was refused, if anything.
    pub fn refused(&self) -> Option<&Failure> {
        self.refused.as_ref()
    }

    /// Whether no refusal waits to be written.
    pub fn is_written(&self) -> bool {
        self.instead.is_empty()
    }
}

impl Failure {
    /// A head is larger than whoever is named by `reader` reads.
    #[must_use]
    pub fn head_too_large(status: StatusCode, headers: usize, reader: &str) -> Self {
        Self {
            status,
            word: "head-too-large",
            text: format!(
                "the head of this request has more than {} KiB or {headers} lines, which is more \
                 than {reader} reads",
                MAX_HEAD >> 10
            ),
        }
    }

    /// All of the response, as it is written.
    fn written(&self) -> Bytes {
        let text = format!("kdev: {}\n", lines(&self.text));
        let head = format!(
            "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\n{ERROR_HEADER}: {}\r\n\r\n",
            self.status,
            text.len(),
            self.word
        );
        (head + &text).into()
    }
}

/// By what hyper refuses a head, if that is what it writes.
fn refusal(written: &[u8]) -> Option<StatusCode> {
    if written.len() > LONGEST || !written.ends_with(BARE.as_bytes()) {
        return None;
    }
    let is = |status: &&StatusCode| written == format!("HTTP/1.1 {status}{BARE}").as_bytes();
    REFUSALS.iter().find(is).copied()
}

impl<T: AsyncWrite + Unpin> Reasoned<T> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.instead))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Io> Io for Reasoned<T> {
    fn reset(&mut self) {
        self.inner.reset();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Reasoned<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Reasoned<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if let Some(failure) = refusal(buf).and_then(self.words) {
            // What does not go out now does so before anything else, or when it is flushed.
            self.instead = failure.written();
            self.refused = Some(failure);
            return match self.poll_instead(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(buf.len())),
            };
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(buf), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, buf);
        }
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_refusals_are_taken_for_such() {
        let bare = |line: &str| format!("HTTP/1.1 {line}{BARE}");
        for (text, status) in [
            (bare("400 Bad Request"), Some(400)),
            (bare("431 Request Header Fields Too Large"), Some(431)),
            (bare("414 URI Too Long"), Some(414)),
            (bare("404 Not Found"), None),
            (bare("400 Bad Request") + "x", None),
            (bare("400 Bad Request\r\nserver: x"), None),
            (BARE.to_owned(), None),
        ] {
            let found = refusal(text.as_bytes()).map(|status| status.as_u16());
            assert_eq!(found, status, "{text:?}");
        }
    }
}
