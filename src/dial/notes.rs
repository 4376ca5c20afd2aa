//! What was thought on the way to a decision.

/// Why a destination leads where it leads, in words, for who asks; a dial does not, and then it
/// costs nothing.
#[derive(Debug, Default)]
pub struct Notes(Option<Vec<String>>);

impl Notes {
    /// Keeps nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Keeps what is said.
    #[must_use]
    pub fn on() -> Self {
        Self(Some(Vec::new()))
    }

    /// Keeps a sentence, once.
    pub fn add(&mut self, sentence: impl FnOnce() -> String) {
        if let Some(kept) = &mut self.0 {
            let sentence = sentence();
            if !kept.contains(&sentence) {
                kept.push(sentence);
            }
        }
    }

    /// What was said, in order.
    #[must_use]
    pub fn into_vec(self) -> Vec<String> {
        self.0.unwrap_or_default()
    }
}
