//! Words that are not said again at once: what breaks for one connection breaks for all at the same
//! moment.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the same words are not said again.
const SAID: Duration = Duration::from_secs(10);

/// What was said a moment ago.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<HashMap<String, Instant>>);

impl Said {
    /// Whether these words are new; from now on they are not.
    pub(super) fn is_new(&self, text: &str) -> bool {
        let now = Instant::now();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| now - *at < SAID);
        said.insert(text.to_owned(), now).is_none()
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
        assert!(said.is_new("a"));
    }
}
