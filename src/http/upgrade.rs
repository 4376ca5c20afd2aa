//! Getting the plain stream back from under hyper when HTTP has ended on it.

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::io::{BoxIo, Io, Prefixed};

/// The stream that hyper spoke HTTP on, with what it read too far in front. `None` where the
/// stream below is no `T`.
#[must_use]
pub fn reclaim<T: Io>(upgraded: Upgraded) -> Option<Prefixed<T>> {
    let parts = upgraded.downcast::<TokioIo<T>>().ok()?;
    Some(Prefixed::new(parts.read_buf, parts.io.into_inner()))
}

/// The origin's side of an upgrade that it has agreed to.
#[derive(Debug)]
pub struct Upstream(pub(super) OnUpgrade);

impl Upstream {
    /// The stream behind the 101 response, ready to be joined with the app's.
    pub async fn stream(self) -> Option<Prefixed<BoxIo>> {
        reclaim(self.0.await.ok()?)
    }
}
