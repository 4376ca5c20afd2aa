//! Waits for what a caller speaks, or for the other side to speak first.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, timeout};

use super::seat::Caller;
use crate::dial::DialError;
use crate::http::{Spoken, looks_like, spoken};
use crate::io::{Io, Prefixed};

/// How long the first line may take from its first byte on, before it is taken for what it looks like.
const LINE_LIMIT: Duration = Duration::from_secs(10);
/// How long a caller has to speak where the last one spoke first, before the pods are dialled to
/// see whether these do.
const HEAD_START: Duration = Duration::from_millis(20);

/// How long a caller has to speak where nobody else can: what waits for the other side to begin must
/// not wait for ever.
const ALONE: Duration = Duration::from_secs(2);

/// Whether these are the first bytes of an HTTP/2 server: it sends its settings without waiting
/// for anybody (RFC 9113, 3.4). `None` when there are too few of them.
fn settings(bytes: &[u8]) -> Option<bool> {
    let frame = bytes.get(..9)?;
    let length = usize::from(frame[1]) << 8 | usize::from(frame[2]);
    Some(frame[0] == 0 && length % 6 == 0 && length < 600 && frame[3..] == [4, 0, 0, 0, 0, 0])
}

/// What is known of a connection once somebody has spoken.
#[derive(Debug)]
pub(super) struct Begun<P> {
    /// What is spoken.
    pub(super) spoken: Spoken,
    /// The caller, from its first byte.
    pub(super) caller: Prefixed<Caller>,
    /// Where its connection goes by default, from the first byte, if that was dialled.
    pub(super) other: Option<Prefixed<P>>,
    /// Whether the caller spoke first.
    pub(super) caller_first: bool,
}

/// Waits until the caller or the other side, which `dial` reaches, has said enough. Where callers
/// were first before (`after`), it is dialled only when this one takes a while; without a `dial`
/// only the caller counts.
pub(super) async fn listen<P, D>(mut caller: Caller, dial: Option<D>, after: bool) -> Begun<P>
where
    P: Io,
    D: Future<Output = Result<P, DialError>>,
{
    let mut said = BytesMut::with_capacity(512);
    let mut ended = false;
    if after && dial.is_some() {
        let read = timeout(HEAD_START, caller.read_buf(&mut said)).await;
        ended = matches!(read, Ok(Ok(0) | Err(_)));
    }
    let mut dial = std::pin::pin!(async {
        match dial {
            Some(dial) => dial.await.ok(),
            None => std::future::pending().await,
        }
    });
    let mut line = std::pin::pin!(tokio::time::sleep(LINE_LIMIT));
    let (mut dialling, mut other, mut replied) = (true, None::<P>, BytesMut::new());
    let (mut begun, mut alone) = (!said.is_empty(), false);
    let spoken = loop {
        let found = spoken(&said);
        if let Some(found) = found.filter(|_| !said.is_empty()) {
            break found;
        }
        // What a caller says to its end without becoming HTTP is something else.
        if ended {
            break Spoken::Other;
        }
        match settings(&replied) {
            Some(true) => break Spoken::Second,
            Some(false) => break Spoken::Other,
            None => {}
        }
        tokio::select! {
            biased;
            read = caller.read_buf(&mut said) => {
                ended = !matches!(read, Ok(n) if n > 0);
                if !std::mem::replace(&mut begun, true) {
                    line.as_mut().reset(tokio::time::Instant::now() + LINE_LIMIT);
                }
            }
            dialled = &mut dial, if dialling => {
                (dialling, alone, other) = (false, dialled.is_none(), dialled);
                if alone && !begun {
                    line.as_mut().reset(tokio::time::Instant::now() + ALONE);
                }
            }
            // Nothing is waited for where the other side speaks, but for a frame's first bytes.
            read = reply(&mut other, &mut replied) => match read {
                Ok(n) if n > 0 && (settings(&replied).is_some() || may_be_settings(&replied)) => {}
                // Nobody is there, as if the dial had failed: a caller of HTTP can be told so.
                Err(error) if DialError::from_io(&error).is_some() => {
                    (alone, other) = (true, None);
                    if !begun {
                        line.as_mut().reset(tokio::time::Instant::now() + ALONE);
                    }
                }
                _ => break Spoken::Other,
            },
            () = &mut line, if begun || alone || !replied.is_empty() => break match replied.is_empty() {
                true => looks_like(&said),
                false => Spoken::Other,
            },
        }
    };
    let caller_first = !said.is_empty();
    Begun {
        spoken,
        caller: Prefixed::new(said.freeze(), caller),
        other: other.map(|other| Prefixed::new(Bytes::from(replied), other)),
        caller_first,
    }
}

fn may_be_settings(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|byte| *byte == 0) && bytes.get(3).is_none_or(|byte| *byte == 4)
}

/// Waits for what the other side says.
async fn reply<P>(other: &mut Option<P>, replied: &mut BytesMut) -> io::Result<usize>
where
    P: AsyncRead + Unpin,
{
    match other {
        Some(other) => other.read_buf(replied).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_http_2_is_known_by_its_settings() {
        assert_eq!(settings(&[0, 0, 6, 4, 0, 0, 0, 0]), None);
        assert_eq!(settings(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3]), Some(true));
        assert_eq!(settings(&[0, 0, 5, 4, 0, 0, 0, 0, 0]), Some(false));
        assert_eq!(settings(b"\x4a\0\0\0\x0a8.0.3"), Some(false));
        assert_eq!(settings(b"220 smtp ready"), Some(false));
    }
}
