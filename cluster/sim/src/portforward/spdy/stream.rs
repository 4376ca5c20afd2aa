//! One SPDY stream as the server holds it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::headers::Headers;
use crate::portforward::copy::Up;

/// The state of a stream that the connection's workers and the forwarding task share.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) headers: Headers,
    /// No more bytes come from the client: FIN, RST, or the connection is over.
    remote_closed: CancellationToken,
    /// Set once the SYN_REPLY is out. Data before that is dropped, writes wait for it.
    replied: CancellationToken,
    /// This side said FIN or RST, or was reset.
    finished: AtomicBool,
    /// A hand-over of one frame: the worker waits until the reader took it.
    data: mpsc::Sender<Bytes>,
    reading: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

impl Stream {
    pub(super) fn new(id: u32, headers: Headers, unidirectional: bool) -> Self {
        let (data, reading) = mpsc::channel(1);
        Self {
            id,
            headers,
            remote_closed: CancellationToken::new(),
            replied: CancellationToken::new(),
            finished: AtomicBool::new(unidirectional),
            data,
            reading: Mutex::new(Some(reading)),
        }
    }

    /// Hands a frame to the reader; waits until the reader took it, for good if nobody reads.
    pub(super) async fn deliver(&self, bytes: Bytes) {
        let taken = async {
            if self.data.send(bytes).await.is_ok() {
                // The only place is free again once the frame was taken. An error is a reader
                // that is gone, and with it whoever could miss the frame.
                let _ = self.data.reserve().await;
            }
        };
        tokio::select! {
            biased;
            () = self.remote_closed.cancelled() => {}
            () = taken => {}
        }
    }

    pub(super) fn close_remote(&self) {
        self.remote_closed.cancel();
    }

    pub(super) fn is_replied(&self) -> bool {
        self.replied.is_cancelled()
    }

    pub(super) fn set_replied(&self) {
        self.replied.cancel();
    }

    pub(super) async fn wait_replied(&self) {
        self.replied.cancelled().await;
    }

    /// Marks this side as done; false when it was already.
    pub(super) fn finish(&self) -> bool {
        !self.finished.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_remote_closed(&self) -> bool {
        self.remote_closed.is_cancelled()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// The bytes from the client, for the one who forwards them.
    pub(super) fn reader(&self) -> Option<Reader> {
        let frames = self
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        Some(Reader {
            frames,
            remote_closed: self.remote_closed.clone(),
        })
    }

    /// Takes the reader back unread: frames from now on wait for nobody.
    pub(super) fn abandon(&self, reader: Reader) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader.frames);
    }
}

/// Frames of one stream until the client's side of it ends.
pub(super) struct Reader {
    frames: mpsc::Receiver<Bytes>,
    remote_closed: CancellationToken,
}

impl Up for Reader {
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            // What was handed over before the end counts.
            biased;
            frame = self.frames.recv() => frame,
            () = self.remote_closed.cancelled() => None,
        }
    }
}
