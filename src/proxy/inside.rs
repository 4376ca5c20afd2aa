//! HTTP inside a stream to a port whose requests are to be marked: each request is sent on for
//! itself. What is no HTTP/1 goes through as it is; HTTP/2 too.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::conn::Session;
use super::http;
use crate::addr::Target;
use crate::dial::{Dial, DialError, HttpIo, Mark};
use crate::http::{Spoken, spoken};
use crate::io::{BoxIo, Io, Prefixed};

/// How long the first line may take from its first byte on: what is no HTTP may wait for an answer
/// to half of one.
const LINE_LIMIT: Duration = Duration::from_secs(2);
/// Bytes that are read at once while it is not known what is spoken.
const FIRST_READ: usize = 512;

/// Joins an app with `upstream`, which leads to `target`, until both have ended.
pub(super) async fn serve<A: Io, D: Dial>(
    session: &Session<D>,
    mut app: A,
    mut upstream: D::Io,
    (target, mark): (Target, Mark),
) {
    let (mut said, mut replied) = (BytesMut::with_capacity(FIRST_READ), BytesMut::new());
    let mut until = Instant::now();
    let first = loop {
        let read = tokio::select! {
            biased;
            read = app.read_buf(&mut said) => read,
            read = upstream.read_buf(&mut replied) => match read {
                // It speaks first, or ends: no HTTP of either kind begins so.
                Ok(_) => break false,
                Err(error) => Err(error),
            },
            () = sleep_until(until), if !said.is_empty() => break false,
        };
        match read {
            Ok(0) => break false,
            Ok(n) if n == said.len() => until = Instant::now() + LINE_LIMIT,
            Ok(_) => {}
            Err(error) => {
                if DialError::from_io(&error).is_some() {
                    session.dial.failed_late();
                }
                app.reset();
                upstream.reset();
                return debug!(%error, "broke before anything was said");
            }
        }
        match spoken(&said) {
            Some(Spoken::First) => break true,
            Some(Spoken::Second | Spoken::Other) => break false,
            None => {}
        }
    };
    let app = Prefixed::new(said.freeze(), app);
    if !first {
        let upstream = Prefixed::new(replied.freeze(), upstream);
        return session.splice(app, upstream).await;
    }
    let dialled = HttpIo {
        io: Box::new(upstream) as BoxIo,
        via: None,
        mark: Some(mark),
    };
    session.forwarder.adopt(&target, dialled, false).await;
    http::serve_inside(session, Box::new(app), target).await;
}
