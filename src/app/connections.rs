//! What is told of the connections of a session: why one failed, to everybody, and each of them
//! with `-v`.
//!
//! An app learns little of a failed dial: a 502, a reply code, a reset. So kdev says it on standard
//! error, once for each kind of failure and destination: apps try again and again. What a `kdev
//! connect` says, the commands that use its session say too: the connection may be theirs.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;
use tracing::{info, warn};

use super::said::Said;
use crate::addr::Target;
use crate::dial::{DialError, Ended, Observe};

/// How long the same failure of the same destination is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// How many failures are said in that time, whatever they are. A browser with a page full of
/// trackers that do not resolve, or a scanner, must not flood a terminal.
const MOST: u32 = 20;
/// Lines that a command which uses this session may lag behind before it misses some.
const LAG: usize = 32;

/// Tells of connections.
#[derive(Debug)]
pub(super) struct Connections {
    said: Said,
    /// When the lines of now began to be counted, and how many there were.
    window: Mutex<(Instant, u32)>,
    lines: broadcast::Sender<String>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            said: Said::once_in(QUIET),
            window: Mutex::new((Instant::now(), 0)),
            lines: broadcast::Sender::new(LAG),
        }
    }
}

impl Connections {
    /// Where the lines that are said can be heard.
    pub(super) fn lines(&self) -> broadcast::Sender<String> {
        self.lines.clone()
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

impl Observe for Connections {
    fn failed(&self, target: &Target, error: &DialError) {
        let mut text = line(target, error);
        let Some(kept) = self.said.say(&key(target, error)) else {
            return info!("{text}");
        };
        if kept > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, " (and {kept} times more since that was last said)");
        }
        match self.room() {
            Room::None => return info!("{text}"),
            Room::Last => text.push_str(" (and more, which -v shows)"),
            Room::Some => {}
        }
        warn!("{text}");
        // Nobody may be listening.
        let _ = self.lines.send(text);
    }

    fn ended(&self, stream: &Ended<'_>) {
        info!("{}", summary(stream));
    }
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
fn summary(stream: &Ended<'_>) -> String {
    let Ended { target, path, .. } = stream;
    let path = match path.to_string() {
        path if path.starts_with(&format!("{target} ")) => {
            path[target.to_string().len()..].to_owned()
        }
        path => format!(" → {path}"),
    };
    format!(
        "{target}{path}, {}, {}",
        duration(stream.lasted),
        kilobytes(stream.moved.forth + stream.moved.back)
    )
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
    use crate::io::Transferred;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_is_one_line() {
        let moved = Transferred {
            forth: 100,
            back: 3_000,
        };
        for (path, lasted, shown) in [
            (
                Path::Pod(Some(Namespaced::new("shop", "web-2"))),
                12,
                "web:80 → pod web-2 (direct), 12 ms, 3.1 kB",
            ),
            (
                Path::Relay(target("10.96.0.7:80")),
                2_345,
                "web:80 → 10.96.0.7:80 (relay), 2.3 s, 3.1 kB",
            ),
            (
                Path::Laptop(target("web:80")),
                61_000,
                "web:80 (this laptop), 1 min 1 s, 3.1 kB",
            ),
        ] {
            let lasted = Duration::from_millis(lasted);
            let target = &target("web:80");
            let path = &path;
            let ended = Ended {
                target,
                path,
                lasted,
                moved,
            };
            assert_eq!(summary(&ended), shown);
        }
        assert_eq!(kilobytes(999), "999 B");
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
        let connections = Connections::default();
        let mut lines = connections.lines().subscribe();
        let error = |reason: &str| DialError::Unreachable {
            target: "web:80".to_owned(),
            reason: reason.to_owned(),
            fix: String::new(),
        };
        let web = target("web:80");
        for n in 0..5 {
            connections.failed(&web, &error(&n.to_string()));
        }
        assert_eq!(lines.try_recv().unwrap(), "web:80 cannot be reached: 0");
        assert!(lines.try_recv().is_err());
        tokio::time::advance(QUIET).await;
        connections.failed(&web, &error("5"));
        let again = lines.try_recv().unwrap();
        assert!(again.contains("reached: 5 (and 4 times more"), "{again}");
        // However many destinations fail, a terminal is not flooded.
        for n in 1..2 * MOST {
            connections.failed(&target(&format!("host-{n}:80")), &error("none"));
        }
        let rest: Vec<String> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
        assert_eq!(rest.len(), MOST as usize - 1);
        assert!(rest[MOST as usize - 2].ends_with("(and more, which -v shows)"));
    }
}
