//! Texts that many objects share, and indexes by them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// An index: names by a text.
pub(super) type Index = HashMap<Arc<str>, HashSet<Arc<str>>>;

/// Puts a name under a text.
pub(super) fn add(index: &mut Index, text: &Arc<str>, name: &Arc<str>) {
    let names = index.entry(text.clone()).or_default();
    names.insert(name.clone());
}

/// Takes it away again.
pub(super) fn take(index: &mut Index, text: &str, name: &str) {
    if let Some(names) = index.get_mut(text) {
        names.remove(name);
        if names.is_empty() {
            index.remove(text);
        }
    }
}

/// Each text once: the labels of 20,000 pods are a few hundred texts.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: HashSet<Arc<str>>,
    /// At which size those that nothing uses any more are thrown out.
    purge_at: usize,
}

impl Texts {
    /// Below this many texts there is nothing worth throwing out.
    const MIN_PURGE: usize = 4096;

    pub(super) fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.purge_at.max(Self::MIN_PURGE) {
            self.all.retain(|text| Arc::strong_count(text) > 1);
            self.purge_at = self.all.len() * 2;
        }
        let new: Arc<str> = text.into();
        self.all.insert(Arc::clone(&new));
        new
    }

    pub(super) fn labels(&mut self, labels: &HashMap<String, String>) -> Box<[Arc<str>]> {
        let labels = labels.iter();
        labels.map(|(k, v)| self.get(&format!("{k}={v}"))).collect()
    }
}
