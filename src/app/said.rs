//! Words that are not said again at once: what breaks for one connection breaks for all at the same
//! moment.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the same words are not said again.
const SAID: Duration = Duration::from_secs(10);
/// How many different words are remembered. A program that fails in more ways than this has them
/// said again sooner.
const MOST: usize = 256;

/// What was said a moment ago.
#[derive(Debug)]
pub(super) struct Said {
    quiet: Duration,
    said: Mutex<HashMap<String, Words>>,
}

#[derive(Debug)]
struct Words {
    at: Instant,
    /// How often they were not said since.
    kept: u64,
}

impl Default for Said {
    fn default() -> Self {
        Self::once_in(SAID)
    }
}

impl Said {
    /// Words are said at most once in `quiet`.
    pub(super) fn once_in(quiet: Duration) -> Self {
        Self {
            quiet,
            said: Mutex::default(),
        }
    }

    /// Whether these words are new; from now on they are not.
    pub(super) fn is_new(&self, text: &str) -> bool {
        self.say(text).is_some()
    }

    /// Whether these words are to be said: how often they were kept back since they last were.
    pub(super) fn say(&self, text: &str) -> Option<u64> {
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = said.get_mut(text) {
            if now - words.at < self.quiet {
                words.kept += 1;
                return None;
            }
            words.at = now;
            return Some(std::mem::take(&mut words.kept));
        }
        if said.len() >= MOST {
            said.retain(|_, words| now - words.at < self.quiet);
            let oldest = said.iter().min_by_key(|(_, words)| words.at);
            if let Some(oldest) = oldest.map(|(text, _)| text.clone())
                && said.len() >= MOST
            {
                said.remove(&oldest);
            }
        }
        said.insert(text.to_owned(), Words { at: now, kept: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_words_are_new_again_after_a_while() {
        let said = Said::default();
        assert!(said.is_new("a") && said.is_new("b"));
        assert!(!said.is_new("a"));
        tokio::time::advance(SAID).await;
        assert_eq!(
            said.say("a"),
            Some(1),
            "and it is known how often they came"
        );
        assert_eq!(said.say("b"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_remembered_than_there_is_room_for() {
        let said = Said::default();
        for n in 0..2 * MOST {
            assert!(said.is_new(&n.to_string()));
            tokio::time::advance(Duration::from_nanos(1)).await;
        }
        assert_eq!(said.said.lock().unwrap().len(), MOST);
        assert!(!said.is_new(&(2 * MOST - 1).to_string()), "the newest stay");
    }
}
