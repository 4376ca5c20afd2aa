//! What is told of the connections of a session: why one failed, to everybody, and each of them
//! with `-v`.
//!
//! An app learns little of a failed dial: a 502, a reply code, a reset. So kdev says it on standard
//! error, once for each kind of failure and destination: apps try again and again. What a `kdev
//! connect` says, the commands that use its session say too, by a count of their own: the connection
//! may be theirs.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, enabled, info, warn};

use super::feed::{Feed, Line};
use super::said::Said;
use crate::addr::Target;
use crate::dial::{DialError, Live, Observe};

/// How long the same failure of the same destination is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// How many failures are said in that time, whatever they are. A browser with a page full of
/// trackers that do not resolve, or a scanner, must not flood a terminal.
const MOST: u32 = 20;

/// Tells of the connections of a session.
#[derive(Debug, Default)]
pub(super) struct Connections {
    failures: Failures,
    feed: Arc<Feed>,
}

impl Connections {
    /// Where the commands that use the session hear of them.
    pub(super) fn feed(&self) -> Arc<Feed> {
        self.feed.clone()
    }

    /// A request to the proxy was refused. `text` says why.
    pub(super) fn refused(&self, text: &str) {
        self.fail(text, text);
    }

    fn fail(&self, kind: &str, text: &str) {
        self.feed.tell(Line::failed(kind, text));
        self.failures.say(kind, text);
    }
}

impl Observe for Connections {
    fn failed(&self, target: &Target, error: &DialError) {
        self.fail(&key(target, error), &line(target, error));
    }

    fn opened(&self, stream: &Arc<Live>) {
        self.feed.opened(stream);
    }

    fn ended(&self, stream: &Arc<Live>, failed: bool) {
        if failed {
            return self.feed.closed(stream, None);
        }
        // Nobody reads most of them, and there is one for each connection.
        let is_read = enabled!(Level::INFO) || self.feed.is_followed();
        let text = is_read.then(|| summary(stream));
        if let Some(text) = &text {
            info!("{text}");
        }
        let line = text.map(|text| Line::connection(&text));
        self.feed.closed(stream, line);
    }
}

/// Says again what the session of another command tells of its connections.
#[derive(Debug, Default)]
pub(super) struct Echo {
    failures: Failures,
}

impl Echo {
    pub(super) fn say(&self, line: &Line) {
        match line {
            Line::Failed { kind, text } => self.failures.say(kind, text),
            Line::Note(text) => warn!("{text}"),
            Line::Connection(text) => info!("{text}"),
            Line::Missed(1) => info!("(one more connection or failure is not shown)"),
            Line::Missed(lines) => info!("({lines} more connections or failures are not shown)"),
            Line::UntilNow => {}
        }
    }
}

/// Says failures, none of them too often.
#[derive(Debug)]
struct Failures {
    said: Said,
    /// When the lines of now began to be counted, and how many there were.
    window: Mutex<(Instant, u32)>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            said: Said::once_in(QUIET),
            window: Mutex::new((Instant::now(), 0)),
        }
    }
}

impl Failures {
    fn say(&self, kind: &str, text: &str) {
        match self.warning(kind, text) {
            Some(text) => warn!("{text}"),
            None => info!("{text}"),
        }
    }

    /// What everybody is to read of a failure, or `None` where that was said.
    fn warning(&self, kind: &str, text: &str) -> Option<String> {
        let kept = self.said.say(kind)?;
        let mut text = text.to_owned();
        if kept > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, " (and {kept} times more since that was last said)");
        }
        match self.room() {
            Room::None => return None,
            Room::Last => text.push_str(" (and more, which -v shows)"),
            Room::Some => {}
        }
        Some(text)
    }

    /// Whether there is room for another line; one that says that there is none is the last.
    fn room(&self) -> Room {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0.elapsed() >= QUIET {
            *window = (Instant::now(), 0);
        }
        window.1 = window.1.saturating_add(1);
        match window.1 {
            n if n < MOST => Room::Some,
            MOST => Room::Last,
            _ => Room::None,
        }
    }
}

enum Room {
    Some,
    Last,
    None,
}

/// What two failures have in common that are said once.
fn key(target: &Target, error: &DialError) -> String {
    let kind = match error {
        DialError::NotFound { .. } => "not-found",
        DialError::Refused { .. } => "refused",
        DialError::Unreachable { .. } => "unreachable",
        DialError::TimedOut { .. } => "timed-out",
        DialError::Denied { .. } => "denied",
        DialError::Forbidden { .. } => "forbidden",
        // The same for all destinations.
        DialError::Cluster { .. } => return "cluster".to_owned(),
    };
    format!("{kind} {target}")
}

/// The failure with the destination, which not every text names.
fn line(target: &Target, error: &DialError) -> String {
    let (target, error) = (target.to_string(), error.to_string());
    if error.starts_with(&target) {
        error
    } else {
        format!("{target}: {error}")
    }
}

/// `web:80 → pod web-2 (direct), 12 ms, 3.1 kB`.
fn summary(stream: &Live) -> String {
    let moved = stream.moved();
    format!(
        "{}, {}, {}",
        way(stream),
        duration(stream.lasted()),
        kilobytes(moved.forth + moved.back)
    )
}

/// The same of a connection that has not ended, and has carried `moved` bytes of late.
pub(super) fn still_open(stream: &Live, moved: u64) -> String {
    format!(
        "{}, still open after {}, {}",
        way(stream),
        duration(stream.lasted()),
        kilobytes(moved)
    )
}

/// `web:80 → pod web-2 (direct)`.
fn way(stream: &Live) -> String {
    let target = stream.target.to_string();
    let path = stream.path.to_string();
    match path.strip_prefix(&target) {
        Some(rest) if rest.starts_with(' ') => path,
        _ => format!("{target} → {path}"),
    }
}

fn duration(lasted: Duration) -> String {
    match lasted.as_secs() {
        0 => format!("{} ms", lasted.as_millis()),
        seconds @ 1..60 => format!("{seconds}.{} s", lasted.subsec_millis() / 100),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// So many bytes, in units of a thousand: `3.1 kB`.
#[must_use]
pub fn kilobytes(count: u64) -> String {
    /// Units of a thousand each.
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match count {
        0..1000 => format!("{count} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Namespaced;
    use crate::dial::Path;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_is_one_line() {
        for (path, shown) in [
            (
                Path::Pod(Some(Namespaced::new("shop", "web-2"))),
                "web:80 → pod web-2 (direct)",
            ),
            (
                Path::Relay(target("10.96.0.7:80")),
                "web:80 → 10.96.0.7:80 (relay)",
            ),
            (Path::Laptop(target("web:80")), "web:80 (this laptop)"),
        ] {
            let live = Live::new(target("web:80"), path, std::time::Instant::now());
            assert_eq!(way(&live), shown);
            let summary = summary(&live);
            let rest = summary.strip_prefix(shown).unwrap();
            assert!(rest.ends_with(" ms, 0 B"), "{rest}");
        }
        for (millis, shown) in [(12, "12 ms"), (2_345, "2.3 s"), (61_000, "1 min 1 s")] {
            assert_eq!(duration(Duration::from_millis(millis)), shown);
        }
        assert_eq!(kilobytes(999), "999 B");
        assert_eq!(kilobytes(3_100), "3.1 kB");
        assert_eq!(kilobytes(5_400_000), "5.4 MB");
    }

    #[test]
    fn the_destination_is_named_once() {
        let refused = DialError::Refused {
            target: "web:81".to_owned(),
            reason: "nothing listens on that port".to_owned(),
        };
        let said = "web:81 refused the connection: nothing listens on that port";
        assert_eq!(line(&target("web:81"), &refused), said);
        let missing = DialError::NotFound {
            what: "Service wbe in namespace shop".to_owned(),
            fix: "did you mean web?".to_owned(),
        };
        let said = "wbe.shop:80: Service wbe in namespace shop was not found; did you mean web?";
        assert_eq!(line(&target("wbe.shop:80"), &missing), said);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_said_once_and_again_after_a_minute() {
        let failures = Failures::default();
        let say = |n: u32| failures.warning("unreachable web:80", &n.to_string());
        assert_eq!(say(0).as_deref(), Some("0"));
        for n in 1..5 {
            assert_eq!(say(n), None);
        }
        tokio::time::advance(QUIET).await;
        let again = say(5).unwrap();
        assert!(again.starts_with("5 (and 4 times more"), "{again}");
        // However many destinations fail, a terminal is not flooded.
        let all = (1..2 * MOST).map(|n| failures.warning(&format!("host-{n}"), "none"));
        let said: Vec<String> = all.flatten().collect();
        assert_eq!(said.len(), MOST as usize - 1);
        assert!(said[MOST as usize - 2].ends_with("(and more, which -v shows)"));
    }

    #[tokio::test]
    async fn who_uses_a_session_hears_also_what_it_has_said_already() {
        let connections = Connections::default();
        let error = DialError::Unreachable {
            target: "web:80".to_owned(),
            reason: "nobody answers".to_owned(),
            fix: String::new(),
        };
        connections.failed(&target("web:80"), &error);
        let mut follower = connections.feed().follow();
        connections.failed(&target("web:80"), &error);
        let told = follower.until_now();
        let text = "web:80 cannot be reached: nobody answers";
        assert_eq!(
            told,
            [Line::failed("unreachable web:80", text), Line::UntilNow]
        );
    }
}
