//! What somebody speaks, by the first bytes.

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a method: the longest that is registered has 17 (UPDATEREDIRECTREF).
const LONGEST_METHOD: usize = 32;
/// Bytes of a request's first line that are waited for. What is longer without an end is taken for
/// what it looks like so far, and whoever reads requests says when a line is too long.
const LONGEST_LINE: usize = 16 << 10;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.
    First,
    /// HTTP/2 without an upgrade.
    Second,
    /// Anything else.
    Other,
}

/// What the first bytes of a caller say; `None` when there are too few of them.
#[must_use]
pub fn spoken(bytes: &[u8]) -> Option<Spoken> {
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
#[must_use]
pub fn looks_like(bytes: &[u8]) -> Spoken {
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
}
