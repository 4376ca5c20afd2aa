//! What a session tells of its connections to the commands that use it: they have no other way to
//! learn why a request of their program failed, or where it went.
//!
//! Whoever follows hears of failures, and of each connection only where that is asked for. Nothing
//! waits for one who is slow: they miss lines, and are told how many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::connections::still_open;
use crate::dial::Live;

/// Lines that one who follows may lag behind before they miss some.
const LAG: usize = 256;
/// Longest text that is told, in characters: several lines of a terminal.
const LONGEST: usize = 2_000;
/// Open connections that are told of at a time; the others are counted.
const MOST_OPEN: usize = 64;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A connection failed, or a request was refused.
    Failed {
        /// Equal for failures that are said once.
        kind: String,
        /// Why.
        text: String,
    },
    /// What else the user should know.
    Note(String),
    /// A connection that has ended, or one that is still open.
    Connection(String),
    /// So many lines were left out.
    Missed(u64),
    /// All that was to be told until it was asked for has been told.
    UntilNow,
}

impl Line {
    /// A failure.
    #[must_use]
    pub fn failed(kind: &str, text: &str) -> Self {
        Self::Failed {
            kind: kind.chars().take(LONGEST).collect(),
            text: text.chars().take(LONGEST).collect(),
        }
    }

    /// What the user should know.
    #[must_use]
    pub fn note(text: &str) -> Self {
        Self::Note(text.chars().take(LONGEST).collect())
    }

    /// A connection.
    #[must_use]
    pub fn connection(text: &str) -> Self {
        Self::Connection(text.chars().take(LONGEST).collect())
    }
}

/// Where a session tells of its connections.
#[derive(Debug)]
pub struct Feed {
    lines: broadcast::Sender<Line>,
    /// The connections that are open, by their place in memory.
    open: Mutex<HashMap<usize, Arc<Live>>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            lines: broadcast::Sender::new(LAG),
            open: Mutex::default(),
        }
    }
}

impl Feed {
    /// Tells everybody who follows.
    pub(super) fn tell(&self, line: Line) {
        // Nobody may be listening.
        let _ = self.lines.send(line);
    }

    /// Whether anybody follows.
    pub(super) fn is_followed(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    /// A connection is open.
    pub(super) fn opened(&self, live: &Arc<Live>) {
        self.open().insert(key(live), live.clone());
    }

    /// It is not any more, which `line` tells. Whoever looks sees one of both.
    pub(super) fn closed(&self, live: &Arc<Live>, line: Option<Line>) {
        let mut open = self.open();
        open.remove(&key(live));
        line.into_iter().for_each(|line| self.tell(line));
    }

    /// Follows from now on; of failures alone, at first.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Follower {
        Follower {
            lines: self.lines.subscribe(),
            feed: self.clone(),
            before: None,
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<usize, Arc<Live>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(live: &Arc<Live>) -> usize {
    Arc::as_ptr(live) as usize
}

/// What a connection has carried, both ways.
fn carried(live: &Live) -> u64 {
    let moved = live.moved();
    moved.forth + moved.back
}

/// Somebody who follows.
#[derive(Debug)]
pub struct Follower {
    feed: Arc<Feed>,
    lines: broadcast::Receiver<Line>,
    /// What each open connection had carried when all connections were asked for, where they were.
    before: Option<HashMap<usize, u64>>,
}

impl Follower {
    /// Follows each connection too, from now on.
    pub fn show_connections(&mut self) {
        let open = self.feed.open();
        let before = open.iter().map(|(key, live)| (*key, carried(live)));
        self.before = Some(before.collect());
    }

    /// The next line, or `None` when there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            let line = match self.lines.recv().await {
                Ok(line) => line,
                Err(RecvError::Lagged(lines)) => Line::Missed(lines),
                Err(RecvError::Closed) => return None,
            };
            if self.wants(&line) {
                return Some(line);
            }
        }
    }

    /// What was to be told until now. Connections that have carried something meanwhile and stay
    /// open are among it: they may be kept for later requests for long, and whoever asks may be
    /// gone by then.
    pub fn until_now(&mut self) -> Vec<Line> {
        let feed = self.feed.clone();
        let open = feed.open();
        let mut told = Vec::new();
        loop {
            let line = match self.lines.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Lagged(lines)) => Line::Missed(lines),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            };
            if self.wants(&line) {
                told.push(line);
            }
        }
        told.extend(self.still_open(&open));
        told.push(Line::UntilNow);
        told
    }

    /// Who does not follow connections misses none.
    fn wants(&self, line: &Line) -> bool {
        matches!(line, Line::Failed { .. } | Line::Note(_)) || self.before.is_some()
    }

    fn still_open(&mut self, open: &HashMap<usize, Arc<Live>>) -> Vec<Line> {
        let Some(before) = &mut self.before else {
            return Vec::new();
        };
        before.retain(|key, _| open.contains_key(key));
        let mut told = Vec::new();
        let mut more = 0;
        for (key, live) in open {
            let now = carried(live);
            let then = before.insert(*key, now);
            let since = now - then.unwrap_or(0).min(now);
            match (then, since) {
                (Some(_), 0) => {}
                _ if told.len() < MOST_OPEN => {
                    told.push(Line::connection(&still_open(live, since)));
                }
                _ => more += 1,
            }
        }
        told.extend((more > 0).then_some(Line::Missed(more)));
        told
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::dial::Path;

    fn live(name: &str) -> Arc<Live> {
        let target: crate::addr::Target = name.parse().unwrap();
        let path = Path::Relay(target.clone());
        Arc::new(Live::new(target, path, Instant::now()))
    }

    fn failure(n: usize) -> Line {
        Line::failed("refused", &n.to_string())
    }

    #[tokio::test]
    async fn failures_are_for_everybody_and_connections_for_whoever_asks() {
        let feed = Arc::new(Feed::default());
        let (mut one, mut two) = (feed.follow(), feed.follow());
        two.show_connections();
        feed.tell(Line::connection("web:80"));
        feed.tell(failure(1));
        assert_eq!(one.next().await, Some(failure(1)));
        assert_eq!(two.next().await, Some(Line::connection("web:80")));
        assert_eq!(two.next().await, Some(failure(1)));
        assert_eq!(one.until_now(), [Line::UntilNow]);
    }

    #[tokio::test]
    async fn who_is_slow_misses_lines_and_is_told_how_many() {
        let feed = Arc::new(Feed::default());
        let (mut one, mut two) = (feed.follow(), feed.follow());
        two.show_connections();
        for n in 0..LAG + 3 {
            feed.tell(failure(n));
        }
        // Who asked for no more than failures is not told of what may have been connections.
        assert_eq!(one.next().await, Some(failure(3)));
        assert_eq!(two.next().await, Some(Line::Missed(3)));
        assert_eq!(two.next().await, Some(failure(3)));
    }

    #[test]
    fn what_is_open_is_told_when_somebody_asks() {
        let feed = Arc::new(Feed::default());
        let (before, after) = (live("idle:80"), live("web:80"));
        feed.opened(&before);
        let mut follower = feed.follow();
        follower.show_connections();
        feed.opened(&after);
        let told = follower.until_now();
        let [Line::Connection(text), Line::UntilNow] = &told[..] else {
            panic!("{told:?}");
        };
        assert!(text.starts_with("web:80 (relay), still open"), "{text}");
        // Once is enough.
        assert_eq!(follower.until_now(), [Line::UntilNow]);
        feed.closed(&before, None);
        feed.closed(&after, Some(Line::connection("the end")));
        let told = follower.until_now();
        assert_eq!(told, [Line::connection("the end"), Line::UntilNow]);
        let many: Vec<_> = (0..MOST_OPEN + 2).map(|_| live("web:80")).collect();
        many.iter().for_each(|live| feed.opened(live));
        let told = follower.until_now();
        assert_eq!(told.len(), MOST_OPEN + 2);
        assert_eq!(told[MOST_OPEN..], [Line::Missed(2), Line::UntilNow]);
    }

    #[test]
    fn no_line_is_longer_than_what_is_read() {
        let long = "\u{1}".repeat(1 << 20);
        for line in [Line::failed(&long, &long), Line::connection(&long)] {
            let written = serde_json::to_string(&line).unwrap().len();
            assert!(written < crate::app::registry::MAX_LINE, "{written}");
        }
    }
}
