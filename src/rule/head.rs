//! What a condition may look at.

use std::borrow::Cow;

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Uri};

/// A request's head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, with the authority where the request has one in it.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> From<&'a Parts> for Head<'a> {
    fn from(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
        }
    }
}

impl<'a> Head<'a> {
    /// The value of a header; several lines are one value (RFC 9110, 5.3; for cookies RFC 9113,
    /// 8.2.3), and the authority stands for the host (RFC 9113, 8.3.1).
    pub(super) fn value(&self, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
        self.value_up_to(name, usize::MAX)
    }

    /// As [`value`](Self::value), and none where it has more than `most` bytes: lines that would
    /// make it longer are not even joined.
    pub(super) fn value_up_to(&self, name: &HeaderName, most: usize) -> Option<Cow<'a, [u8]>> {
        let mut lines = self.headers.get_all(name).iter();
        let Some(first) = lines.next() else {
            let host = self.uri.authority().filter(|_| name == HOST)?;
            return Some(Cow::Borrowed(host.as_str().as_bytes()));
        };
        let mut value = Cow::Borrowed(first.as_bytes());
        let between: &[u8] = if name == COOKIE { b"; " } else { b", " };
        for line in lines {
            let all = value.to_mut();
            all.extend_from_slice(between);
            all.extend_from_slice(line.as_bytes());
            if all.len() > most {
                return None;
            }
        }
        Some(value)
    }

    /// The path, without the query, as it was sent.
    pub(super) fn path(&self) -> &'a str {
        self.uri.path()
    }
}
