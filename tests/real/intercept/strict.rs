//! What somebody strict reads in a stream of requests: nothing that another reader could take for
//! something else.

use std::fmt::Debug;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// The target as it was sent.
    pub(super) target: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// The value of all lines of this name together.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let lines = self.headers.iter().filter(|(other, _)| other == name);
        let values: Vec<_> = lines
            .map(|(_, value)| String::from_utf8_lossy(value))
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// All requests in a stream, of which the last one may have been broken off.
///
/// # Errors
/// What is ambiguous.
pub(super) fn requests(mut stream: &[u8]) -> Result<Vec<Request>, String> {
    let mut all = Vec::new();
    while let Some(end) = find(stream, b"\r\n\r\n") {
        let (request, length) = head(&stream[..end])?;
        all.push(request);
        let body = &stream[end + 4..];
        let rest = match length {
            Length::Bytes(bytes) => body.get(bytes..),
            Length::Chunked => chunks(body)?,
        };
        match rest {
            Some(rest) => stream = rest,
            None => return Ok(all),
        }
    }
    // What the head of a last one begins with is none.
    match stream.is_empty() {
        true => Ok(all),
        false => odd("a head without an end", stream),
    }
}

enum Length {
    Bytes(usize),
    Chunked,
}

fn head(bytes: &[u8]) -> Result<(Request, Length), String> {
    let mut lines = split(bytes, b"\r\n").into_iter();
    let first = lines.next().unwrap_or_default();
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else {
        return odd("no request", first);
    };
    let plain = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
    if !method.iter().all(is_token) || !plain(target) {
        return odd("an odd request", first);
    }
    let mut headers = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or_default());
        if name.is_empty() || !name.iter().all(is_token) {
            return odd("an odd line", line);
        }
        let value = value[1..].trim_ascii();
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if value.iter().any(control) {
            return odd("an odd value", line);
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        headers.push((name, value.to_vec()));
    }
    let of = |name: &str| -> Vec<&[u8]> {
        let all = headers.iter().filter(|(other, _)| other == name);
        all.map(|(_, value)| value.as_slice()).collect()
    };
    let length = match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        ([], []) => Length::Bytes(0),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => {
            let length = String::from_utf8_lossy(length);
            Length::Bytes(length.parse().map_err(|_| format!("a length {length:?}"))?)
        }
        ([], [b"chunked"]) => Length::Chunked,
        both => return Err(format!("lengths {both:?}")),
    };
    if let host @ ([] | [_, _, ..]) = &of("host")[..] {
        return Err(format!("hosts {host:?}"));
    }
    let target = String::from_utf8_lossy(target).into_owned();
    Ok((Request { target, headers }, length))
}

/// What stands behind a body in chunks; none where it is broken off.
fn chunks(mut body: &[u8]) -> Result<Option<&[u8]>, String> {
    loop {
        let Some(end) = find(body, b"\r\n") else {
            return Ok(None);
        };
        let size = String::from_utf8_lossy(&body[..end]).into_owned();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a chunk of {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|e| format!("{size:?}: {e}"))?;
        body = &body[end + 2..];
        if size == 0 {
            // Trailers, to the empty line.
            let end = match body.starts_with(b"\r\n") {
                true => Some(2),
                false => find(body, b"\r\n\r\n").map(|end| end + 4),
            };
            return Ok(end.map(|end| &body[end..]));
        }
        let Some((data, rest)) = body.split_at_checked(size + 2) else {
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return odd("a chunk without an end", data);
        }
        body = rest;
    }
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn split<'a>(mut bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(end) = find(bytes, at) {
        parts.push(&bytes[..end]);
        bytes = &bytes[end + at.len()..];
    }
    parts.push(bytes);
    parts
}

fn odd<T>(what: &str, bytes: &[u8]) -> Result<T, String> {
    Err(format!("{what}: {:?}", String::from_utf8_lossy(bytes)))
}

#[test]
fn the_strict_reader_is_strict() {
    let read = |text: &str| requests(text.as_bytes()).map(|all| all.len());
    let ok = "GET / HTTP/1.1\r\nHost: x\r\n";
    assert_eq!(
        read(&format!("{ok}\r\n{ok}Content-Length: 2\r\n\r\nab{ok}\r\n")),
        Ok(3)
    );
    let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!(
        read(&format!("{chunked}2\r\nab\r\n0\r\n\r\n{ok}\r\n")),
        Ok(2)
    );
    assert_eq!(read(&format!("{chunked}0\r\na: b\r\n\r\n{ok}\r\n")), Ok(2));
    assert_eq!(read(&format!("{chunked}2\r\na")), Ok(1));
    for wrong in [
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        "Content-Length: +2\r\n\r\nab",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: Chunked\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        "X: a\r\n b\r\n\r\n",
        "X: a\rb\r\n\r\n",
        "X: a\nb: c\r\n\r\n",
        "X: a\0\r\n\r\n",
        "Host: y\r\n\r\n",
        "\r\nabc",
    ] {
        assert!(read(&format!("{ok}{wrong}")).is_err(), "{wrong:?}");
    }
}
