//! Copies of request bodies that never slow down the original.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most bytes of a body that is copied; of a longer one there is no copy.
pub const LONGEST_COPY: usize = 1 << 20;
/// Bytes of all copies that wait for whoever gets them.
pub const COPIES: usize = 4 << 20;
/// Chunks of one copy that wait.
const CHUNKS: usize = 256;

/// What all copies together may hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CopyBudget(Arc<Semaphore>);

impl Default for CopyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(COPIES)))
    }
}

type BoxError = Box<dyn Error + Send + Sync>;
type Chunk = Option<(Bytes, OwnedSemaphorePermit)>;

/// Where the bytes of a body go besides the origin. Dropped before [`CopyTo::end`], it aborts the
/// copy.
#[derive(Debug)]
pub(super) struct CopyTo {
    to: mpsc::Sender<Chunk>,
    bytes: usize,
    budget: CopyBudget,
}

/// The copy.
#[derive(Debug)]
pub(super) struct Copied {
    from: mpsc::Receiver<Chunk>,
    ended: bool,
}

/// Both ends of a copy.
pub(super) fn copy(budget: &CopyBudget) -> (CopyTo, Copied) {
    let (to, from) = mpsc::channel(CHUNKS);
    let budget = budget.clone();
    let to = CopyTo {
        to,
        bytes: 0,
        budget,
    };
    (to, Copied { from, ended: false })
}

impl CopyTo {
    /// Copies a chunk, without waiting. Returns whether that could be; else the copy is to be
    /// dropped.
    pub(super) fn push(&mut self, data: &Bytes) -> bool {
        self.bytes += data.len();
        let bytes = u32::try_from(data.len()).ok();
        let bytes = bytes.filter(|_| self.bytes <= LONGEST_COPY);
        let room = bytes.and_then(|n| self.budget.0.clone().try_acquire_many_owned(n).ok());
        room.is_some_and(|room| self.to.try_send(Some((data.clone(), room))).is_ok())
    }

    /// The body is whole.
    pub(super) fn end(self) {
        // A copy that is too slow for even this is aborted by the drop.
        let _ = self.to.try_send(None);
    }
}

impl Copied {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.from.poll_recv(cx));
        self.ended = !matches!(chunk, Some(Some(_)));
        Poll::Ready(match chunk {
            Some(Some((data, _room))) => Some(Ok(Frame::data(data))),
            Some(None) => None,
            None => Some(Err("the copy of the body broke off".into())),
        })
    }
}
