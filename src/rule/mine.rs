//! Marking requests as somebody's, for whom `--mine` takes them apart.

use http::header::{Entry, HeaderMap, HeaderValue};
use serde_json::Value;

use super::condition::{Kind, mine_header};
use super::{Conditions, MINE_BAGGAGE, baggage};

/// Has a request carry the baggage member that `--mine` with this `value` looks at, and says whether
/// it does now; one that says already whose it is stays as it is.
///
/// The member and not the header, because apps that trace hand it on with the requests that they
/// make themselves.
pub fn mark(headers: &mut HeaderMap, value: &str) -> bool {
    if headers.contains_key(mine_header()) || baggage::value(headers, MINE_BAGGAGE).is_some() {
        return false;
    }
    let member = format!("{MINE_BAGGAGE}={}", baggage::encode(value));
    let Ok(alone) = HeaderValue::from_str(&member) else {
        return false;
    };
    match headers.entry(baggage::HEADER) {
        Entry::Vacant(none) => drop(none.insert(alone)),
        // Some libraries read one line only.
        Entry::Occupied(mut lines) => {
            if let Some(last) = lines.iter_mut().next_back() {
                let all = [last.as_bytes(), b",", member.as_bytes()].concat();
                match HeaderValue::from_bytes(&all) {
                    Ok(all) if !last.is_empty() => *last = all,
                    _ => *last = alone,
                }
            }
        }
    }
    true
}

/// Whether a request that is marked with this `value` fulfils a condition `--mine` of these.
#[must_use]
pub fn is_mine(conditions: &Conditions, value: &str) -> bool {
    let mut all = conditions.iter();
    all.any(|one| matches!(&one.0, Kind::Mine(whose) if whose == value))
}

/// The value of `--mine` among conditions as they are written down; the others are not looked at,
/// which may be of a kind that only a newer kdev knows.
#[must_use]
pub fn mine_of(conditions: &Value) -> Option<&str> {
    let mut all = conditions.as_array()?.iter();
    all.find_map(|one| one.get("mine")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::{Condition, Conditions, Head};
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_marked_fulfils_the_condition() {
        for value in ["ada", "a,b;c=%d\"\\", "ada+1@x"] {
            for before in [
                &[][..],
                &[("accept", "*/*")],
                &[("baggage", "a=1;p, b=2")],
                &[("baggage", "a=1"), ("baggage", "b=2")],
                &[("baggage", "")],
                &[("baggage", "KDEV=other")],
            ] {
                let mut headers = headers(before);
                assert!(mark(&mut headers, value), "{before:?}");
                let (method, uri) = (http::Method::GET, http::Uri::from_static("/"));
                let head = Head {
                    method: &method,
                    uri: &uri,
                    headers: &headers,
                };
                assert!(Condition::mine(value).unwrap().holds(&head), "{headers:?}");
                // What was there stays in front, and a second time changes nothing.
                let lines = headers.get_all("baggage").iter().count();
                let were = before.iter().filter(|(name, _)| *name == "baggage").count();
                assert_eq!(lines, were.max(1), "{headers:?}");
                let once = headers.clone();
                assert!(!mark(&mut headers, value));
                assert_eq!(headers, once);
            }
        }
        let mut two = headers(&[("baggage", "a=1"), ("baggage", "b=2")]);
        mark(&mut two, "ada");
        assert_eq!(
            two,
            headers(&[("baggage", "a=1"), ("baggage", "b=2,kdev=ada")])
        );
    }

    #[test]
    fn who_says_whose_it_is_is_believed() {
        for said in [
            ("x-kdev", "bob"),
            ("x-kdev", ""),
            ("baggage", "a=1, kdev=bob"),
        ] {
            let before = headers(&[said]);
            let mut after = before.clone();
            assert!(!mark(&mut after, "ada"), "{said:?}");
            assert_eq!(after, before);
        }
    }

    #[test]
    fn whose_a_claim_is_is_read_from_what_is_written_down() {
        let conditions = |flags: &[Condition]| {
            serde_json::to_value(Conditions::new(flags.to_vec()).unwrap()).unwrap()
        };
        let path = Condition::path("/a").unwrap();
        let mine = Condition::mine("ada").unwrap();
        assert_eq!(mine_of(&conditions(&[path.clone(), mine])), Some("ada"));
        assert_eq!(mine_of(&conditions(&[path])), None);
        assert_eq!(mine_of(&conditions(&[])), None);
        assert_eq!(mine_of(&serde_json::json!({"mine": "ada"})), None);
    }
}
