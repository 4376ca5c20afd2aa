//! What kdev and the relay tell each other beside the streams: lines of JSON on one stream of a
//! reverse tunnel, which the relay opens first. This is how they say it; what they say belongs
//! to whoever does it.

use std::io;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes of one line: what a relay knows of 500 claims.
const LONGEST_LINE: usize = 128 << 10;

/// Writes one message.
///
/// # Errors
/// When the stream fails.
pub async fn write<W, M>(to: &mut W, message: &M) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    M: Serialize,
{
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

/// Reads messages one by one.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    read: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from a stream's beginning.
    pub fn new(from: R) -> Self {
        Self {
            from,
            read: BytesMut::new(),
        }
    }

    /// The next message; `None` at the end. A message that this version does not understand is
    /// skipped. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream fails, or a line is too long to be one.
    pub async fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        loop {
            match self.next_or_why().await? {
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "a control message that is not understood");
                }
                None => return Ok(None),
            }
        }
    }

    /// As [`Reader::next`], for whoever has to answer each message: one that this version does not
    /// understand comes as the reason for that.
    ///
    /// # Errors
    /// When the stream fails, or a line is too long to be one.
    pub async fn next_or_why<M: DeserializeOwned>(
        &mut self,
    ) -> io::Result<Option<serde_json::Result<M>>> {
        loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(at + 1);
                return Ok(Some(serde_json::from_slice(&line)));
            }
            if self.read.len() > LONGEST_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line without end",
                ));
            }
            if self.from.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }
}
