//! W3C baggage. <https://www.w3.org/TR/baggage/#header-content>

use std::borrow::Cow;

use http::HeaderMap;

/// The header.
pub(super) const HEADER: &str = "baggage";
/// Members that are looked at, from the last one: more than anybody must carry (64).
const MOST_MEMBERS: usize = 256;

/// The members of all lines, the last one first: keys as they are, values decoded, properties left
/// out. What is no member is skipped.
pub(super) fn members(headers: &HeaderMap) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let lines = headers.get_all(HEADER).iter().rev();
    let texts = lines.filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
    texts
        .flat_map(|line| line.rsplit(','))
        .take(MOST_MEMBERS)
        .filter_map(member)
}

/// The value of the last member of that name.
pub(super) fn value<'a>(headers: &'a HeaderMap, key: &str) -> Option<Cow<'a, str>> {
    members(headers).find_map(|(name, value)| (name == key).then_some(value))
}

/// As [`value`], of one header value at hand.
pub(super) fn value_in<'a>(text: &'a str, key: &str) -> Option<Cow<'a, str>> {
    let mut members = text.rsplit(',').take(MOST_MEMBERS).filter_map(member);
    members.find_map(|(name, value)| (name == key).then_some(value))
}

fn member(text: &str) -> Option<(&str, Cow<'_, str>)> {
    let bare = text.split(';').next()?;
    let (key, value) = bare.split_once('=')?;
    let key = key.trim();
    (!key.is_empty()).then(|| (key, decode(value.trim())))
}

/// Percent-decodes; what is not encoded rightly, or decodes to no text, stays as it is.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let decoded = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(decoded.unwrap_or(*byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Percent-encodes what cannot stand in a value as it is.
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"%,;\\".contains(byte);
    let each = text.bytes().map(|byte| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn members_are_found_in_all_lines_and_decoded() {
        for (lines, found) in [
            (&["kdev=me"][..], Some("me")),
            (&["a=1, kdev = me ;ttl=3;x , b=2"], Some("me")),
            (&["a=1", "b=2,kdev=me"], Some("me")),
            (&["kdev=J%C3%B6rg%20B"], Some("Jörg B")),
            (&["kdev=50%"], Some("50%")),
            (&["kdev=%zz%41"], Some("%zzA")),
            (&["kdev=%ff"], Some("%ff")),
            (&["kdev=a=b"], Some("a=b")),
            (&["kdev="], Some("")),
            // The last one counts, as OpenTelemetry's libraries have it.
            (&["kdev=you,kdev=me"], Some("me")),
            (&["kdev=you", "kdev=me"], Some("me")),
            (&["KDEV=me"], None),
            (&["kdev"], None),
            (&["=me", ",,;", ""], None),
            (&["a=kdev=me"], None),
            (&[], None),
        ] {
            let headers = headers(lines);
            assert_eq!(value(&headers, "kdev").as_deref(), found, "{lines:?}");
        }
    }

    #[test]
    fn a_long_list_is_looked_at_from_its_end() {
        let long = "x=1,".repeat(MOST_MEMBERS) + "kdev=me";
        assert_eq!(value(&headers(&[&long]), "kdev").as_deref(), Some("me"));
        let long = "kdev=me".to_owned() + &",x=1".repeat(MOST_MEMBERS);
        assert_eq!(value(&headers(&[&long]), "kdev"), None);
    }
}
