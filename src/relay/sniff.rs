//! What a caller speaks, by its first bytes, or that the other side speaks first.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, timeout};

use super::seat::Caller;
use crate::dial::DialError;
use crate::io::{Io, Prefixed};

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a method: the longest that is registered has 17 (UPDATEREDIRECTREF).
const LONGEST_METHOD: usize = 32;
/// Bytes of a request's first line that are waited for. What is longer without an end is taken for
/// what it looks like so far, and whoever reads requests says when a line is too long.
const LONGEST_LINE: usize = 16 << 10;
/// How long the first line may take from its first byte on, before it is taken for what it looks like.
const LINE_LIMIT: Duration = Duration::from_secs(10);
/// How long a caller has to speak where the last one spoke first, before the pods are dialled to
/// see whether these do.
const HEAD_START: Duration = Duration::from_millis(20);

/// How long a caller has to speak where nobody else can: what waits for the other side to begin must
/// not wait for ever.
const ALONE: Duration = Duration::from_secs(2);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.
    First,
    /// HTTP/2 without an upgrade.
    Second,
    /// Anything else.
    Other,
}

/// What the first bytes of a caller say; `None` when there are too few of them.
pub(super) fn spoken(bytes: &[u8]) -> Option<Spoken> {
    let seen = bytes.len().min(PREFACE.len());
    if seen == PREFACE.len() && bytes[..seen] == *PREFACE {
        return Some(Spoken::Second);
    }
    let may_be_second = bytes[..seen] == PREFACE[..seen];
    // Servers skip empty lines in front of a request (RFC 9112, 2.2).
    let empty = bytes
        .iter()
        .take_while(|byte| b"\r\n".contains(byte))
        .count();
    let line = &bytes[empty..];
    if empty > 4 {
        return Some(Spoken::Other);
    }
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) if !may_be_second => {
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            let known = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
            Some(if known { Spoken::First } else { Spoken::Other })
        }
        _ => {
            let method = line
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(line.len());
            let token =
                |byte: &u8| byte.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(byte);
            let may_be_first = method <= LONGEST_METHOD && line[..method].iter().all(token);
            match (may_be_first, bytes.len() < LONGEST_LINE) {
                (true, true) => None,
                (true, false) => Some(looks_like(bytes)),
                (false, _) => Some(Spoken::Other),
            }
        }
    }
}

/// What a first line that has no end yet most likely is: hardly anything but HTTP begins with a
/// method and the target of a request.
fn looks_like(bytes: &[u8]) -> Spoken {
    let mut words = bytes.trim_ascii_start().splitn(3, |byte| *byte == b' ');
    let (_method, target, version) = (words.next(), words.next(), words.next());
    let target = target.unwrap_or_default();
    let of_target = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    let begins = target.starts_with(b"/") || target.starts_with(b"http://");
    let version = version.is_none_or(|version| b"HTTP/1.1\r".starts_with(version));
    match begins && version && target.iter().all(of_target) {
        true => Spoken::First,
        false => Spoken::Other,
    }
}

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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_known_stays_so_whatever_follows(
            head in prop::sample::select(vec![
                &b""[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\nPUT /", b"PRI * H",
            ]),
            more in prop::collection::vec(any::<u8>(), 0..40),
            cut in 0..60_usize,
        ) {
            let bytes = [head, &more].concat();
            let early = spoken(&bytes[..cut.min(bytes.len())]);
            prop_assert!(early.is_none() || early == spoken(&bytes));
            let _ = settings(&bytes);
        }
    }

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        use Spoken::{First, Other, Second};
        for (bytes, expected) in [
            (&b""[..], None),
            (b"GET / HTTP/1.1\r\n", Some(First)),
            (b"GET / HTTP/1.0\nHost", Some(First)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(First)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(First)),
            (b"GET / HTTP/1.1", None),
            (b"GET", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Second)),
            (b"PRI * HTTP/2.0\r\n\r\n", None),
            (b"PRI * HTTP/2.0\r\n\r\nGET", Some(Other)),
            (b"PRI", None),
            (b"PING\r\n", Some(Other)),
            (b"get key\r\n", Some(Other)),
            (b"GET / HTTP/2.0\r\n", Some(Other)),
            (b"SSH-2.0-x\r\n", Some(Other)),
            (b"*1\r\n$4\r\n", Some(Other)),
            (b"\x16\x03\x01\x02", Some(Other)),
            (b"\0\0\0\x08", Some(Other)),
            (b"\r\n\r\n\r\n", Some(Other)),
        ] {
            assert_eq!(
                spoken(bytes),
                expected,
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
        assert_eq!(spoken(&[b'a'; 40]), Some(Other));
        for (begin, expected) in [
            (&b"GET /"[..], First),
            (b"\r\nGET http://web/", First),
            (b"GET ", Other),
            (b"GET /\x01", Other),
            (b"GET / some words of another protocol ", Other),
            (b"set key 0 0 99999", Other),
        ] {
            let long = [begin, &[b'a'; LONGEST_LINE]].concat();
            let begin = begin.escape_ascii();
            assert_eq!(spoken(&long), Some(expected), "{begin}");
        }
        let cut = [b"GET /".as_slice(), &[b'a'; LONGEST_LINE], b" HTTP/1."].concat();
        assert_eq!(spoken(&cut), Some(First));
    }

    #[test]
    fn a_server_of_http_2_is_known_by_its_settings() {
        assert_eq!(settings(&[0, 0, 6, 4, 0, 0, 0, 0]), None);
        assert_eq!(settings(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3]), Some(true));
        assert_eq!(settings(&[0, 0, 5, 4, 0, 0, 0, 0, 0]), Some(false));
        assert_eq!(settings(b"\x4a\0\0\0\x0a8.0.3"), Some(false));
        assert_eq!(settings(b"220 smtp ready"), Some(false));
    }
}
