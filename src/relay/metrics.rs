//! What the relay counts, in the text form that Prometheus reads.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::part::Part;
use super::seat::Why;
use crate::io::Transferred;
use crate::tunnel::{HandshakeError, RefusalCode};

/// Counters. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Counters>);

/// Why a peer did not become a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It came from elsewhere than the pod's own loopback.
    Foreign,
    /// Too many newer ones came before it had proved itself.
    Crowded,
    /// It did not speak, or not to the end.
    Silent,
    /// What it said is no first message of a kdev.
    Malformed,
    /// No version that both speak.
    Version,
    /// It does not know the secret of the role that it asked for.
    Proof,
    /// It wanted to be a session that is another kdev's.
    Session,
    /// There are as many tunnels as there is memory for.
    Busy,
    /// It left.
    Broken,
    /// The relay has no secret yet.
    Unready,
}

impl Refused {
    const ALL: [(Self, &str); 10] = [
        (Self::Foreign, "{reason=\"foreign\"}"),
        (Self::Crowded, "{reason=\"crowded\"}"),
        (Self::Silent, "{reason=\"silent\"}"),
        (Self::Malformed, "{reason=\"malformed\"}"),
        (Self::Version, "{reason=\"version\"}"),
        (Self::Proof, "{reason=\"proof\"}"),
        (Self::Session, "{reason=\"session\"}"),
        (Self::Busy, "{reason=\"busy\"}"),
        (Self::Broken, "{reason=\"broken\"}"),
        (Self::Unready, "{reason=\"unready\"}"),
    ];

    /// What a handshake that failed counts as.
    #[must_use]
    pub fn of(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::TimedOut => Self::Silent,
            HandshakeError::NotTheOwner(_) => Self::Session,
            HandshakeError::Refused(refusal) => match refusal.code {
                RefusalCode::Malformed => Self::Malformed,
                RefusalCode::Version => Self::Version,
                RefusalCode::Proof => Self::Proof,
                RefusalCode::Session => Self::Session,
                RefusalCode::Busy => Self::Busy,
            },
            HandshakeError::Io(_)
            | HandshakeError::NotARelay
            | HandshakeError::Impostor
            | HandshakeError::Version { .. } => Self::Broken,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    tunnels_forward: AtomicI64,
    tunnels_reverse: AtomicI64,
    streams: AtomicI64,
    callers: AtomicI64,
    closed: [AtomicU64; 5],
    crowded: AtomicU64,
    budget: OnceLock<Part>,
    refused: [AtomicU64; Refused::ALL.len()],
    streams_total: AtomicU64,
    streams_failed: AtomicU64,
    inbound_total: AtomicU64,
    inbound_to_kdev: AtomicU64,
    requests_total: AtomicU64,
    requests_to_kdev: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

/// Something that lives now: counted until it is dropped.
#[derive(Debug)]
pub struct Live(Arc<Counters>, fn(&Counters) -> &AtomicI64);

impl Drop for Live {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    fn live(&self, which: fn(&Counters) -> &AtomicI64) -> Live {
        which(&self.0).fetch_add(1, Ordering::Relaxed);
        Live(self.0.clone(), which)
    }

    /// A tunnel began.
    #[must_use]
    pub fn tunnel(&self, reverse: bool) -> Live {
        match reverse {
            true => self.live(|c| &c.tunnels_reverse),
            false => self.live(|c| &c.tunnels_forward),
        }
    }

    /// A stream began.
    #[must_use]
    pub fn stream(&self) -> Live {
        self.0.streams_total.fetch_add(1, Ordering::Relaxed);
        self.live(|c| &c.streams)
    }

    /// A caller's connection began.
    #[must_use]
    pub fn caller(&self) -> Live {
        self.live(|c| &c.callers)
    }

    /// A caller was closed for others.
    pub(super) fn closed(&self, why: Why) {
        self.0.closed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A caller, a request or a stream was refused: there is no memory for it.
    pub fn crowded(&self) {
        self.0.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// What all connections are charged to.
    pub(super) fn budget(&self, part: Part) {
        // There is one budget.
        let _ = self.0.budget.set(part);
    }

    /// A peer did not become a tunnel.
    pub fn refused(&self, why: Refused) {
        self.0.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A dial failed.
    pub fn failed(&self) {
        self.0.streams_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request of a caller of an intercepted Service was passed to kdev or to its pods.
    pub fn request(&self, to_kdev: bool) {
        self.0.requests_total.fetch_add(1, Ordering::Relaxed);
        let to_kdev = u64::from(to_kdev);
        let total = &self.0.requests_to_kdev;
        total.fetch_add(to_kdev, Ordering::Relaxed);
    }

    /// A caller's connection was passed to kdev or to its pods as a whole.
    pub fn inbound(&self, to_kdev: bool) {
        self.0.inbound_total.fetch_add(1, Ordering::Relaxed);
        let to_kdev = u64::from(to_kdev);
        self.0.inbound_to_kdev.fetch_add(to_kdev, Ordering::Relaxed);
    }

    /// A stream has ended after so many bytes.
    pub fn carried(&self, moved: Transferred) {
        self.0.bytes_sent.fetch_add(moved.forth, Ordering::Relaxed);
        let received = &self.0.bytes_received;
        received.fetch_add(moved.back, Ordering::Relaxed);
    }

    /// The page that Prometheus reads.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        let c = &self.0;
        let now = |n: &AtomicI64| n.load(Ordering::Relaxed).to_string();
        let total = |n: &AtomicU64| n.load(Ordering::Relaxed).to_string();
        let mut add = |name: &str, kind: &str, help: &str, values: &[(&str, String)]| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        };
        add(
            "kdev_relay_tunnels",
            "gauge",
            "Tunnels that are open.",
            &[
                ("{role=\"forward\"}", now(&c.tunnels_forward)),
                ("{role=\"reverse\"}", now(&c.tunnels_reverse)),
            ],
        );
        add(
            "kdev_relay_streams",
            "gauge",
            "Streams of forward tunnels that are open.",
            &[("", now(&c.streams))],
        );
        add(
            "kdev_relay_callers",
            "gauge",
            "Connections of callers of intercepted Services that are open.",
            &[("", now(&c.callers))],
        );
        let budget = c.budget.get();
        let charged = budget.map_or(0, Part::used).to_string();
        let most = budget.map_or(0, Part::most).to_string();
        add(
            "kdev_relay_memory_bytes",
            "gauge",
            "Memory that connections are charged with, and what they may be.",
            &[("{is=\"charged\"}", charged), ("{is=\"budget\"}", most)],
        );
        add(
            "kdev_relay_callers_closed_total",
            "counter",
            "Callers that were closed because memory ran low.",
            &[
                ("{reason=\"idle\"}", total(&c.closed[Why::Idle as usize])),
                ("{reason=\"stuck\"}", total(&c.closed[Why::Stuck as usize])),
                (
                    "{reason=\"pausing\"}",
                    total(&c.closed[Why::Pausing as usize]),
                ),
                (
                    "{reason=\"silent\"}",
                    total(&c.closed[Why::Silent as usize]),
                ),
                ("{reason=\"share\"}", total(&c.closed[Why::Share as usize])),
            ],
        );
        add(
            "kdev_relay_crowded_total",
            "counter",
            "Callers, requests and streams that were refused because memory ran low.",
            &[("", total(&c.crowded))],
        );
        add(
            "kdev_relay_handshakes_refused_total",
            "counter",
            "Peers that did not become a tunnel.",
            &Refused::ALL.map(|(why, labels)| (labels, total(&c.refused[why as usize]))),
        );
        add(
            "kdev_relay_streams_total",
            "counter",
            "Streams that were opened.",
            &[("", total(&c.streams_total))],
        );
        add(
            "kdev_relay_dials_failed_total",
            "counter",
            "Destinations that could not be reached or may not be.",
            &[("", total(&c.streams_failed))],
        );
        add(
            "kdev_relay_inbound_connections_total",
            "counter",
            "Connections of callers of intercepted Services that were passed on as a whole.",
            &[("", total(&c.inbound_total))],
        );
        add(
            "kdev_relay_inbound_to_kdev_total",
            "counter",
            "Those of them that went to a kdev.",
            &[("", total(&c.inbound_to_kdev))],
        );
        add(
            "kdev_relay_requests_total",
            "counter",
            "HTTP requests of callers of intercepted Services.",
            &[("", total(&c.requests_total))],
        );
        add(
            "kdev_relay_requests_to_kdev_total",
            "counter",
            "Those of them that went to a kdev.",
            &[("", total(&c.requests_to_kdev))],
        );
        add(
            "kdev_relay_bytes_total",
            "counter",
            "Bytes of TCP streams that have ended.",
            &[
                ("{direction=\"out\"}", total(&c.bytes_sent)),
                ("{direction=\"in\"}", total(&c.bytes_received)),
            ],
        );
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_line() {
        for (place, (why, _)) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
        let metrics = Metrics::default();
        metrics.refused(Refused::Unready);
        metrics.refused(Refused::Foreign);
        metrics.refused(Refused::Foreign);
        let page = metrics.page();
        let line = |reason: &str, count: u32| {
            format!("kdev_relay_handshakes_refused_total{{reason=\"{reason}\"}} {count}\n")
        };
        for (reason, count) in [("foreign", 2), ("proof", 0), ("unready", 1)] {
            assert!(page.contains(&line(reason, count)), "{page}");
        }
    }
}
