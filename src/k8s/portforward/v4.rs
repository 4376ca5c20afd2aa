//! `v4.channel.k8s.io`, the last resort: one connection per stream, each message starting with
//! the number of its channel.
//! Source: `k8s.io/streaming/pkg/httpstream/wsstream` and the kubelet's `portforward/websocket.go`.

use bytes::{Buf, Bytes};

/// The channel of the first port's data.
pub(super) const DATA: u32 = 0;
/// The channel of the first port's error text.
pub(super) const ERROR: u32 = 1;

/// Bytes at the start of each channel that repeat the port, little-endian.
const PORT_ECHO: usize = 2;

/// Takes messages apart, however they are cut.
#[derive(Debug)]
pub(super) struct Demux {
    channel: u32,
    /// Bytes of the port that each channel still repeats.
    echo: [usize; 2],
}

impl Demux {
    pub(super) fn new() -> Self {
        Self {
            channel: 0,
            echo: [PORT_ECHO; 2],
        }
    }

    /// The channel and the payload in a piece of a message, if there is any payload in it for a
    /// channel that exists. `first` says that a message begins with the piece.
    pub(super) fn take(&mut self, mut piece: Bytes, first: bool) -> Option<(u32, Bytes)> {
        if first {
            self.channel = u32::from(piece.get_u8());
        }
        let echo = self.echo.get_mut(self.channel as usize)?;
        let skipped = piece.len().min(*echo);
        *echo -= skipped;
        piece.advance(skipped);
        (!piece.is_empty()).then_some((self.channel, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_the_ports_they_repeat() {
        let mut demux = Demux::new();
        let mut take = |bytes: &'static [u8], first| demux.take(Bytes::from_static(bytes), first);
        assert_eq!(take(&[0, 0x90, 0x1f], true), None);
        assert_eq!(take(&[1], true), None);
        assert_eq!(take(&[0x90, 0x1f], false), None);
        assert_eq!(take(b"\0he", true), Some((DATA, Bytes::from_static(b"he"))));
        assert_eq!(
            take(b"llo", false),
            Some((DATA, Bytes::from_static(b"llo")))
        );
        assert_eq!(
            take(b"\x01refused", true),
            Some((ERROR, Bytes::from_static(b"refused")))
        );
        assert_eq!(take(b"\x07what", true), None);
    }
}
