//! The body of a request to the origin: what a caller sends, as it comes, and its beginning once
//! more where the first try reached nobody.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::CONTINUE_TIMEOUT;
use super::body::Gate;
use super::copy::CopyTo;

type BoxError = Box<dyn Error + Send + Sync>;

/// Bytes of a body that are kept so that a request that reached nobody can be sent again: a form, a
/// message of an RPC. A longer body is sent once.
pub const KEPT: usize = 16 << 10;

/// The body of a request to the origin.
#[derive(Debug, Default)]
pub struct RequestBody {
    /// None where the request has no body.
    source: Option<Arc<Source>>,
    /// Frames that were read.
    at: usize,
    /// Set until the origin asked for the body.
    waits: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
}

#[derive(Debug)]
struct Source {
    hint: SizeHint,
    gate: Option<Arc<Gate>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    from: From,
    /// The frames that were read, as long as they are few.
    kept: Vec<Kept>,
    /// Frames that were read, kept or not.
    read: usize,
    bytes: usize,
    /// Whether all of it was read.
    ended: bool,
    copies: Vec<CopyTo>,
}

/// Tells whether a request's body is through, without keeping it.
#[derive(Debug, Default)]
pub struct BodyWatch(Weak<Source>);

impl BodyWatch {
    /// Whether all of it has come, or nobody reads it any more.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.0.upgrade().is_none_or(|source| {
            let state = source.lock();
            state.ended || state.from.is_end_stream()
        })
    }
}

/// Where a body comes from.
#[derive(Debug)]
enum From {
    Caller(Incoming),
    Copy(super::copy::Copied),
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl From {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Caller(body) => body.is_end_stream(),
            Self::Copy(_) => false,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Caller(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Copy(copied) => copied.poll_frame(cx),
        }
    }
}

impl RequestBody {
    /// The caller's body, and its gate where the caller waits for `100 Continue`. Reading the
    /// body is what makes hyper send that, so the gate carries the expectation through.
    pub(super) fn new(body: Incoming, expects_continue: bool) -> (Self, Option<Arc<Gate>>) {
        if body.is_end_stream() {
            return (Self::default(), None);
        }
        let gate = expects_continue.then(|| Arc::new(Gate::default()));
        let hint = body.size_hint();
        let source = Source::new(hint, gate.clone(), From::Caller(body));
        (Self::of(Arc::new(source)), gate)
    }

    /// The copy of a body.
    pub(super) fn copied(hint: SizeHint, copied: super::copy::Copied) -> Self {
        Self::of(Arc::new(Source::new(hint, None, From::Copy(copied))))
    }

    fn of(source: Arc<Source>) -> Self {
        let waits = source.gate.clone().map(|gate| {
            let patience = Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT));
            (gate, patience)
        });
        Self {
            source: Some(source),
            at: 0,
            waits,
        }
    }

    /// To see when it is through.
    pub(super) fn watch(&self) -> BodyWatch {
        BodyWatch(self.source.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// Whether the request has no body.
    pub(super) fn is_empty(&self) -> bool {
        self.source.is_none()
    }

    /// Whether all of it will be at hand for [`RequestBody::again`].
    pub(super) fn is_kept(&self) -> bool {
        let kept = |length| length <= KEPT as u64;
        self.is_empty() || self.size_hint().exact().is_some_and(kept)
    }

    /// The same body from its beginning; `None` where that is no longer at hand. Only one of them
    /// may be read at a time.
    pub(super) fn again(&self) -> Option<Self> {
        match &self.source {
            None => Some(Self::default()),
            Some(source) => {
                let whole = {
                    let state = source.lock();
                    state.kept.len() == state.read
                };
                whole.then(|| Self::of(source.clone()))
            }
        }
    }

    /// For [`RequestBody::again`] later on.
    pub(super) fn handle(&self) -> Self {
        Self {
            source: self.source.clone(),
            at: 0,
            waits: None,
        }
    }

    /// Has what is read of it copied.
    pub(super) fn copy_to(&self, copy: CopyTo) {
        if let Some(source) = &self.source {
            source.lock().copies.push(copy);
        }
    }
}

impl Source {
    fn new(hint: SizeHint, gate: Option<Arc<Gate>>, from: From) -> Self {
        let state = State {
            from,
            kept: Vec::new(),
            read: 0,
            bytes: 0,
            ended: false,
            copies: Vec::new(),
        };
        Self {
            hint,
            gate,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_frame(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.kept.get(at) {
            Some(Kept::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data.clone())))),
            Some(Kept::Trailers(trailers)) => {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
            }
            None if at < self.read => {
                let gone = "the beginning of the body is no longer at hand";
                return Poll::Ready(Some(Err(gone.into())));
            }
            None => {}
        }
        let frame = ready!(self.from.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.remember(frame),
            // A copy of what broke off must not look whole.
            Some(Err(_)) => self.copies.clear(),
            None => {
                self.ended = true;
                self.copies.drain(..).for_each(CopyTo::end);
            }
        }
        Poll::Ready(frame)
    }

    fn remember(&mut self, frame: &Frame<Bytes>) {
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (_, Some(trailers)) => Kept::Trailers(trailers.clone()),
            _ => return,
        };
        if let Kept::Data(data) = &kept {
            self.bytes += data.len();
            self.copies.retain_mut(|copy| copy.push(data));
        }
        self.read += 1;
        if self.bytes <= KEPT && self.kept.len() + 1 == self.read {
            self.kept.push(kept);
        } else {
            self.kept = Vec::new();
        }
        if self.from.is_end_stream() {
            self.copies.drain(..).for_each(CopyTo::end);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some((gate, patience)) = &mut self.waits {
            if let Err(unwanted) = ready!(gate.poll_open(cx, patience.as_mut())) {
                return Poll::Ready(Some(Err(unwanted.into())));
            }
            self.waits = None;
        }
        let this = &mut *self;
        let Some(source) = &this.source else {
            return Poll::Ready(None);
        };
        let frame = ready!(source.lock().poll_frame(this.at, cx));
        this.at += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(source) = &self.source else {
            return true;
        };
        let state = source.lock();
        self.at >= state.read && state.from.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            None => SizeHint::with_exact(0),
            // hyper asks before the first frame.
            Some(source) if self.at == 0 => source.hint,
            Some(_) => SizeHint::default(),
        }
    }
}
