//! A request that fulfils conditions, for whoever wants to see an intercept work.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::condition::{Kind, mine_header};
use super::form::quoted;
use super::{Conditions, Head, MINE_HEADER, baggage};

/// A request that fulfils conditions, as far as one is known.
struct Sample {
    method: Option<Method>,
    path: Option<String>,
    headers: Vec<(HeaderName, String)>,
    /// What is left to whoever sends it.
    open: Vec<String>,
}

impl Conditions {
    /// Arguments of curl for a request to `origin` that fulfils these, as a shell takes them. What is
    /// said besides has to be added for that; nothing where the request certainly fulfils them all.
    #[must_use]
    pub fn as_curl(&self, origin: &str) -> (String, Vec<String>) {
        let sample = Sample::of(self);
        let mut flags = String::new();
        for (name, value) in &sample.headers {
            flags += &format!("-H {} ", quoted(&format!("{name}: {value}")));
        }
        match &sample.method {
            // Of another curl would wait for a body.
            Some(method) if *method == Method::HEAD => flags += "-I ",
            Some(method) => flags += &format!("-X {} ", quoted(method.as_str())),
            None => {}
        }
        let path = sample.path.as_deref().unwrap_or_default();
        if path.contains(['[', ']', '{', '}']) {
            flags += "--globoff ";
        }
        if path.split('/').any(|part| part == "." || part == "..") {
            flags += "--path-as-is ";
        }
        (flags + &quoted(&format!("{origin}{path}")), sample.open)
    }
}

impl Sample {
    fn of(conditions: &Conditions) -> Self {
        let mut sample = Self {
            method: None,
            path: path(conditions),
            headers: Vec::new(),
            open: Vec::new(),
        };
        for condition in conditions.iter() {
            match &condition.0 {
                Kind::Header(name, value) => sample.add(name, value.clone()),
                Kind::HeaderMatches(name, pattern) if !sample.has(name) => {
                    match pattern.example("") {
                        Some(value) => sample.add(name, value),
                        None => sample.open.push(any_header(name, pattern.as_str())),
                    }
                }
                // One line that says it is enough, and of two neither would.
                Kind::Mine(value) if !sample.has(&mine_header()) => {
                    sample.add(&HeaderName::from_static(MINE_HEADER), value.clone());
                }
                Kind::Baggage(key, value) => sample.add(
                    &HeaderName::from_static(baggage::HEADER),
                    format!("{key}={}", baggage::encode(value)),
                ),
                Kind::Method(method) => sample.method = Some(method.clone()),
                Kind::PathMatches(pattern) if sample.path.is_none() => sample
                    .open
                    .push(format!("any path that matches {}", pattern.as_str())),
                _ => {}
            }
        }
        if sample.open.is_empty() && !sample.fulfils(conditions) {
            sample.leave_open(conditions);
        }
        sample
    }

    fn add(&mut self, name: &HeaderName, value: String) {
        self.headers.push((name.clone(), value));
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(own, _)| own == name)
    }

    /// Whether it certainly does.
    fn fulfils(&self, conditions: &Conditions) -> bool {
        let Some(Ok(uri)) = self.path.as_ref().map(|path| path.parse::<Uri>()) else {
            return false;
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let Ok(value) = HeaderValue::from_str(value) else {
                return false;
            };
            headers.append(name.clone(), value);
        }
        conditions.hold(&Head {
            method: self.method.as_ref().unwrap_or(&Method::GET),
            uri: &uri,
            headers: &headers,
        })
    }

    /// What was made up for regular expressions does not go together: it is left out, and said.
    fn leave_open(&mut self, conditions: &Conditions) {
        for condition in conditions.iter() {
            match &condition.0 {
                Kind::HeaderMatches(name, pattern) => {
                    let is_said = conditions
                        .iter()
                        .any(|one| matches!(&one.0, Kind::Header(own, _) if own == name));
                    if !is_said {
                        self.headers.retain(|(own, _)| own != name);
                        self.open.push(any_header(name, pattern.as_str()));
                    }
                }
                Kind::PathMatches(pattern) => {
                    self.path = None;
                    self.open
                        .push(format!("any path that matches {}", pattern.as_str()));
                }
                _ => {}
            }
        }
    }
}

fn any_header(name: &HeaderName, pattern: &str) -> String {
    format!("a header {name} that matches {pattern}")
}

/// The path that is asked for, the shortest one otherwise; none where a regular expression leaves it
/// to whoever knows one.
fn path(conditions: &Conditions) -> Option<String> {
    let exact = conditions.iter().find_map(|one| match &one.0 {
        Kind::Path(path) => Some(path.clone()),
        _ => None,
    });
    if exact.is_some() {
        return exact;
    }
    let prefixes = conditions.iter().filter_map(|one| match &one.0 {
        Kind::PathPrefix(prefix) => Some(prefix.as_str()),
        _ => None,
    });
    let begin = prefixes.max_by_key(|prefix| prefix.len()).unwrap_or("/");
    let patterns: Vec<_> = conditions
        .iter()
        .filter_map(|one| match &one.0 {
            Kind::PathMatches(pattern) => Some(pattern),
            _ => None,
        })
        .collect();
    if patterns.iter().all(|pattern| pattern.matches_text(begin)) {
        return Some(begin.to_owned());
    }
    let examples = patterns.iter().filter_map(|pattern| pattern.example(begin));
    let mut fitting =
        examples.filter(|path| patterns.iter().all(|pattern| pattern.matches_text(path)));
    fitting.next()
}
