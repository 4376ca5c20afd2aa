//! What kdev and the relay tell each other beside the streams: lines of JSON on one stream of a
//! reverse tunnel, which the relay opens first.

use std::io;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes of one line: 500 claims of 246 bytes would fit, one is what comes.
const LONGEST_LINE: usize = 128 << 10;

/// What kdev asks of the relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Ask {
    /// Give this session what arrives on a port of the fixed range.
    Attach {
        /// The port.
        port: u16,
    },
    /// Give it to the original pods again.
    Detach {
        /// The port.
        port: u16,
    },
}

/// What the relay says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Tell {
    /// What arrives on the port comes through this tunnel or another one of the session.
    Attached {
        /// The port.
        port: u16,
    },
    /// It does not.
    Detached {
        /// The port.
        port: u16,
    },
    /// The relay did not do it.
    Refused {
        /// The port.
        port: u16,
        /// Why, for people.
        reason: String,
    },
}

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

    /// The next message; `None` at the end. A message of a kind that this version does not know
    /// is skipped. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream fails, or a line is too long to be one.
    pub async fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(at + 1);
                if let Ok(message) = serde_json::from_slice(&line) {
                    return Ok(Some(message));
                }
                tracing::debug!(
                    bytes = line.len(),
                    "a control message that is not understood"
                );
                continue;
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
