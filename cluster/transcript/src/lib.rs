//! Recorded port-forward connections between real clients and real servers, frame by frame.
//!
//! A recording is a text file in `golden/`. `tests/real/transcripts.rs` of kdev makes them in the
//! lab and compares; the simulation plays against the client's side of each, kdev against the
//! server's. The codec here is neither kdev's nor the simulation's, so neither is checked by
//! itself.
//!
//! What differs from run to run is masked or left out: names, ids, dates, nonces, tokens, how
//! bytes are cut into frames, pings. No order is kept between streams or between directions,
//! except that a peer's frame that stands behind others was sent after they had arrived.

mod cases;
mod decode;
mod encode;
mod mask;
mod spdy;
mod text;
mod websocket;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use cases::{CASES, Case, Step};
pub use decode::Decoder;
pub use encode::Encoder;
pub use mask::mask;

/// A wire form of port-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// An upgrade to `SPDY/3.1` by POST.
    Spdy,
    /// The same inside a WebSocket, `SPDY/3.1+portforward.k8s.io`.
    Tunnel,
    /// `v4.channel.k8s.io`: a WebSocket whose messages begin with a channel.
    V4,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spdy, Self::Tunnel, Self::V4];

    /// The name in a recording's file name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spdy => "spdy",
            Self::Tunnel => "tunnel",
            Self::V4 => "v4",
        }
    }
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The client sent it: `>`.
    Client,
    /// The server sent it: `<`.
    Server,
    /// It happened in the cluster: `!`.
    Cluster,
}

/// One thing that was sent, or that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A request's or an answer's head: its first line and the headers that matter, sorted.
    Head(Vec<String>),
    /// SYN_STREAM.
    Open {
        /// The stream.
        stream: u32,
        /// It ends the sender's side.
        fin: bool,
        /// By name.
        headers: Vec<(String, String)>,
    },
    /// SYN_REPLY.
    Reply {
        /// The stream.
        stream: u32,
    },
    /// Bytes on a stream, or on a channel.
    Data {
        /// The stream or channel.
        stream: u32,
        /// However many frames they came in.
        payload: Vec<u8>,
    },
    /// The end of the sender's side of a stream.
    Fin {
        /// The stream.
        stream: u32,
    },
    /// RST_STREAM.
    Reset {
        /// The stream.
        stream: u32,
        /// Why: 5 is "cancel".
        status: u32,
    },
    /// GOAWAY.
    GoAway,
    /// A WebSocket's close message.
    Close {
        /// Its code; 0 for none.
        code: u16,
    },
    /// The end of the connection.
    End,
    /// The pod was removed.
    PodRemoved,
}

impl What {
    /// The stream that it belongs to; none for what is the connection's.
    #[must_use]
    pub fn stream(&self) -> Option<u32> {
        match self {
            Self::Open { stream, .. }
            | Self::Reply { stream }
            | Self::Data { stream, .. }
            | Self::Fin { stream }
            | Self::Reset { stream, .. } => Some(*stream),
            Self::Head(_) | Self::GoAway | Self::Close { .. } | Self::End | Self::PodRemoved => {
                None
            }
        }
    }
}

/// Something with who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who.
    pub side: Side,
    /// What.
    pub what: What,
}

/// What one side did on each stream (`None`: on the connection), in order.
pub type Stories = BTreeMap<Option<u32>, Vec<What>>;

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Lines for readers: who spoke with whom.
    pub notes: Vec<String>,
    /// In the order in which they passed the recorder.
    pub events: Vec<Event>,
}

impl Transcript {
    /// Adds an event, where bytes that go on are joined to those before them.
    pub fn push(&mut self, side: Side, what: What) {
        if let What::Data { stream, payload } = &what {
            let of_stream = |event: &&mut Event| event.what.stream() == Some(*stream);
            let last = self.events.iter_mut().rev().find(of_stream);
            if let Some(Event {
                side: before,
                what: What::Data { payload: known, .. },
            }) = last
                && *before == side
            {
                known.extend_from_slice(payload);
                return;
            }
        }
        self.events.push(Event { side, what });
    }

    /// What a side did, stream by stream; bytes are joined whatever came between them.
    #[must_use]
    pub fn stories(&self, side: Side) -> Stories {
        let mut stories = Stories::new();
        for event in self.events.iter().filter(|event| event.side == side) {
            let story = stories.entry(event.what.stream()).or_default();
            match (&event.what, story.last_mut()) {
                (What::Data { payload, .. }, Some(What::Data { payload: known, .. })) => {
                    known.extend_from_slice(payload);
                }
                (what, _) => story.push(what.clone()),
            }
        }
        stories
    }

    /// Where the recording of a case in a form is kept: `spdy-echo.1.37-kubectl-1.37.txt` has the
    /// server's version and the client.
    #[must_use]
    pub fn path(form: Form, case: &Case, server: &str, client: &str) -> PathBuf {
        let file = format!("{}-{}.{server}-{client}.txt", form.name(), case.name);
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
        PathBuf::from(golden).join(file)
    }

    /// The recordings of a case in a form, with their file names: the newest server's first, and
    /// of one server the newest client's.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn all(form: Form, case: &Case) -> Result<Vec<(String, Self)>, String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
        let folder = std::path::Path::new(folder);
        let stem = format!("{}-{}.", form.name(), case.name);
        let listed = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(&stem)).collect();
        // Versions from 1.10 to 1.99 are in the order of their letters.
        names.sort_by(|a, b| b.cmp(a));
        let read = |name: String| {
            let text = std::fs::read_to_string(folder.join(&name)).map_err(|e| e.to_string());
            let transcript = text.and_then(|text| text.parse());
            let transcript = transcript.map_err(|e| format!("{name}: {e}"))?;
            Ok((name, transcript))
        };
        names.into_iter().map(read).collect()
    }

    /// Those of [`Self::all`] that were made with a server of this version, `1.37` say.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn with_server(
        form: Form,
        case: &Case,
        server: &str,
    ) -> Result<Vec<(String, Self)>, String> {
        let mut all = Self::all(form, case)?;
        let stem = format!("{}-{}.{server}-", form.name(), case.name);
        all.retain(|(name, _)| name.starts_with(&stem));
        Ok(all)
    }
}

/// Whether `so_far` is all of `wanted` up to here, each stream on its own: every event of
/// `wanted` has its counterpart, bytes may go on.
#[must_use]
pub fn reached(so_far: &Stories, wanted: &Stories) -> bool {
    wanted.iter().all(|(stream, wanted)| {
        let Some(story) = so_far.get(stream) else {
            return false;
        };
        let all = wanted.iter().zip(story).all(|pair| match pair {
            (
                What::Data {
                    payload: wanted, ..
                },
                What::Data { payload, .. },
            ) => payload.len() >= wanted.len(),
            _ => true,
        });
        all && story.len() >= wanted.len()
    })
}

/// Stories as text, for a comparison that people read.
#[must_use]
pub fn told(stories: &Stories) -> String {
    let mut out = String::new();
    for (stream, story) in stories {
        let stream = stream.map_or_else(|| "connection".to_owned(), |id| format!("stream {id}"));
        out += &format!("{stream}:\n");
        story
            .iter()
            .for_each(|what| out += &format!("    {what}\n"));
    }
    out
}
