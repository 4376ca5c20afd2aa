//! What the streams of a tunnel hold for apps that have stopped reading.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use h2::FlowControl;

/// The open streams of a tunnel, to ask each how much it holds: a stream that nobody reads cannot
/// say so itself.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Streams>);

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    open: HashMap<u64, FlowControl>,
}

/// An open stream's entry, which goes when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    held: Arc<Held>,
    number: u64,
}

impl Held {
    /// Notes an open stream.
    pub(super) fn note(self: &Arc<Self>, flow: FlowControl) -> Entry {
        let mut streams = self.lock();
        streams.next += 1;
        let number = streams.next;
        streams.open.insert(number, flow);
        Entry {
            held: self.clone(),
            number,
        }
    }

    /// Bytes that came and were not read, in all streams. Takes a look at each.
    pub(super) fn bytes(&self) -> usize {
        self.lock()
            .open
            .values()
            .map(FlowControl::used_capacity)
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What it is the last handle of is dropped when the lock is free again.
        let _flow = self.held.lock().open.remove(&self.number);
    }
}
