//! Events to the bytes of one direction of a connection.

use crate::spdy::Writer;
use crate::{Form, Side, What, websocket};

/// Encodes one direction, from behind the head on: heads need what was masked.
pub struct Encoder {
    form: Form,
    side: Side,
    spdy: Writer,
}

impl Encoder {
    /// For what `side` sends on a connection of `form`.
    #[must_use]
    pub fn new(form: Form, side: Side) -> Self {
        Self {
            form,
            side,
            spdy: Writer::new(),
        }
    }

    /// The bytes of an event; none for heads, ends and what is not sent.
    pub fn encode(&mut self, what: &What) -> Vec<u8> {
        let masked = self.side == Side::Client;
        let mut out = Vec::new();
        match (what, self.form) {
            (What::Close { code }, _) => {
                let code = code.to_be_bytes();
                let payload = if code == [0, 0] { &[][..] } else { &code };
                websocket::put(&mut out, websocket::CLOSE, masked, payload);
            }
            (_, Form::Spdy) => return self.spdy.frame(what),
            (What::Data { stream, payload }, Form::V4) => {
                let message = [&[*stream as u8][..], payload].concat();
                websocket::put(&mut out, websocket::BINARY, masked, &message);
            }
            (_, Form::V4) => {}
            (_, Form::Tunnel) => {
                let frame = self.spdy.frame(what);
                if !frame.is_empty() {
                    websocket::put(&mut out, websocket::BINARY, masked, &frame);
                }
            }
        }
        out
    }
}
