//! The forwarding engine: takes a request that an app sent to a proxy, and exchanges it with the
//! origin over a stream that [`Dial`](crate::dial::Dial) opened.
//!
//! Bodies are streamed both ways with back-pressure; nothing is buffered whole. The engine
//! changes only what belongs to one hop: it adds no `Via` and no `X-Forwarded-For`, so that the
//! pod sees what it would see from a caller in the cluster. It does not listen, does not check
//! who asks, and knows nothing of CONNECT; that is the proxy's part.
//!
//! Not passed on: informational responses other than 100 and 101 (hyper's server cannot send
//! them), and trailers that no `Trailer` header announced (hyper drops them).

mod body;
mod copy;
mod failure;
mod forward;
mod headers;
mod mark;
mod pass;
mod pool;
mod reasoned;
mod replay;
mod request;
mod shared;
mod sips;
mod spoken;
#[cfg(test)]
mod tests;
mod turnover;
mod upgrade;
mod via;

use std::time::Duration;

pub use body::Body;
pub use copy::{COPIES, CopyBudget, LONGEST_COPY};
pub use failure::{ERROR_HEADER, Failure, broke_off};
pub use forward::{Forwarded, Forwarder};
pub use pass::{Failed, Passing};
pub use reasoned::{Reasoned, Words};
pub use request::{BodyWatch, KEPT, RequestBody};
pub use spoken::{Spoken, looks_like, spoken};
pub use turnover::Turnover;
pub use upgrade::{Upstream, reclaim};

/// Largest head of a request. Twice what curl, nginx and most servers allow, so that the origin says
/// what is too much for it, not kdev.
pub const MAX_HEAD: usize = 64 << 10;

/// Largest head of a response: what browsers take, and near what curl does (300 KB), so that
/// callers get what they would get without kdev.
pub const MAX_ANSWER_HEAD: usize = 256 << 10;

/// Lines of one head. Servers take 100 (Apache, Python, hyper) to 2,000 (Node). Room for all is made
/// for each head that is read, at 64 bytes a line.
pub const MAX_HEADERS: usize = 256;

/// Bytes of a body that one direction of a connection holds: as much as a
/// [`splice`](crate::io::splice) holds. Not below [`MAX_HEAD`], which must fit in.
pub const MAX_BUFFER: usize = 64 << 10;

/// Idle connections that are kept to one authority: about what a browser or a test's connection
/// pool uses at a time.
pub const MAX_IDLE_PER_AUTHORITY: usize = 32;

/// Idle connections that are kept in total. Each costs a stream to a pod and some 10 KiB.
pub const MAX_IDLE: usize = 256;

/// How long a connection stays in the pool unused. Pods come and go, and a connection keeps to
/// its pod, so a pool that forgets soon also spreads the load again.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request body waits for the origin's `100 Continue` before it is sent anyway, as
/// clients themselves do (curl waits 1 s): old servers do not know the expectation.
pub const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
