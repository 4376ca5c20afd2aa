//! What is done on the recorded connections, by kubectl and by kdev alike.

/// Something that the user of a forwarded port does. Numbers are those of its connections.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Connects, to the case's port.
    Open(usize),
    /// Sends bytes.
    Send(usize, &'static [u8]),
    /// Reads these bytes.
    Expect(usize, &'static [u8]),
    /// Ends its side and goes on reading.
    Finish(usize),
    /// Reads to the end, or to an error.
    ReadToEnd(usize),
    /// The pod is deleted, and gone after this.
    RemovePod,
}

/// A conversation.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in a recording's file name.
    pub name: &'static str,
    /// The pod's port.
    pub port: u16,
    /// In order.
    pub steps: &'static [Step],
}

use Step::{Expect, Finish, Open, ReadToEnd, RemovePod, Send};

/// Sends back what it reads and ends when its caller has.
const ECHO: u16 = 9001;
/// Reads to the end, then answers with the count and a sum.
const SINK: u16 = 9000;
/// Nothing listens.
const CLOSED: u16 = 9;

/// All conversations.
pub const CASES: [Case; 5] = [
    Case {
        name: "echo",
        port: ECHO,
        steps: &[
            Open(0),
            Send(0, b"hello"),
            Expect(0, b"hello"),
            Finish(0),
            ReadToEnd(0),
        ],
    },
    Case {
        // The pod would answer to the end of what it reads, which the runtime never tells it: a
        // second later it ends both directions.
        name: "half-close",
        port: SINK,
        steps: &[Open(0), Send(0, b"hello"), Finish(0), ReadToEnd(0)],
    },
    Case {
        name: "refused",
        port: CLOSED,
        steps: &[Open(0), ReadToEnd(0)],
    },
    Case {
        name: "pod-gone",
        port: ECHO,
        steps: &[
            Open(0),
            Send(0, b"hello"),
            Expect(0, b"hello"),
            RemovePod,
            ReadToEnd(0),
        ],
    },
    Case {
        name: "two",
        port: ECHO,
        steps: &[
            Open(0),
            Send(0, b"one"),
            Expect(0, b"one"),
            Open(1),
            Send(1, b"two"),
            Expect(1, b"two"),
            Finish(1),
            ReadToEnd(1),
            Send(0, b"more"),
            Expect(0, b"more"),
            Finish(0),
            ReadToEnd(0),
        ],
    },
];
