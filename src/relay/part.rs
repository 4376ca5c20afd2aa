//! Parts of a budget: what is charged to one is charged to those that it is of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A part of the budget. Cloning is shallow.
#[derive(Clone, Debug)]
pub(super) struct Part(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    used: AtomicUsize,
    above: Option<Part>,
}

impl Part {
    pub(super) fn new(most: usize, above: Option<Self>) -> Self {
        Self(Arc::new(Inner {
            most,
            used: AtomicUsize::new(0),
            above,
        }))
    }

    /// A part of this part.
    pub(super) fn within(&self, most: usize) -> Self {
        Self::new(most, Some(self.clone()))
    }

    /// Bytes that may be charged to it.
    pub(super) fn most(&self) -> usize {
        self.0.most
    }

    /// Bytes that are charged to it.
    pub(super) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Charges what is there already, whether there is room for it or not.
    pub(super) fn pin(&self, bytes: usize) -> Charge {
        self.add(bytes);
        Charge {
            part: self.clone(),
            bytes,
        }
    }

    /// Charges `bytes` where there is room, in this part and those that it is of; so many more as
    /// `spare` are as good as free.
    pub(super) fn take(&self, bytes: usize, spare: usize) -> Option<Charge> {
        // First charged, then looked at: of two at a time, none goes unseen.
        let charge = self.pin(bytes);
        let over = |part: &Self| part.used() > part.most() + spare;
        (!self.any(over)).then_some(charge)
    }

    /// Whether `bytes` more would be too many.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.used() + bytes > self.most()
    }

    /// Whether something is so of this part or one that it is of.
    pub(super) fn any(&self, so: impl Fn(&Self) -> bool) -> bool {
        let mut part = Some(self);
        while let Some(one) = part {
            if so(one) {
                return true;
            }
            part = one.0.above.as_ref();
        }
        false
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn add(&self, bytes: usize) {
        let mut part = Some(self);
        while let Some(Self(inner)) = part {
            inner.used.fetch_add(bytes, Ordering::Relaxed);
            part = inner.above.as_ref();
        }
    }

    fn free(&self, bytes: usize) {
        let mut part = Some(self);
        while let Some(Self(inner)) = part {
            inner.used.fetch_sub(bytes, Ordering::Relaxed);
            part = inner.above.as_ref();
        }
    }
}

/// Bytes that are charged until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    part: Part,
    bytes: usize,
}

impl Charge {
    /// How many there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.part.free(self.bytes);
    }
}
