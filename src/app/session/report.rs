//! What a session tells about itself.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Session;
use crate::app::intercept::Shown;
use crate::app::registry::{Lends, Listening, RelayReport, Report, TunnelReport};
use crate::k8s::client::About;
use crate::k8s::portforward::PortForward;
use crate::proxy::Stats;
use crate::tunnel::pool::{Pool, PoolStatus, TunnelState, TunnelStatus};

/// Looks at a session, as often as somebody asks.
pub(super) struct Reporter {
    command: String,
    since: u64,
    about: About,
    pods: PortForward,
    relay: Option<Pool>,
    stats: Arc<Stats>,
    listening: Vec<Listening>,
    lends: Option<Lends>,
    shown: Shown,
}

impl Reporter {
    pub(super) fn new(
        session: &Session,
        command: &str,
        listening: Vec<Listening>,
        lends: Option<Lends>,
    ) -> Self {
        Self {
            command: command.to_owned(),
            since: seconds(session.began),
            about: session.client.about().clone(),
            pods: session.pods.clone(),
            relay: session.relay.clone(),
            stats: session.stats.clone(),
            listening,
            lends,
            shown: session.shown.clone(),
        }
    }

    pub(super) fn report(&self) -> Report {
        let direct = self.pods.status();
        let relay = self.relay.as_ref().map(Pool::status);
        let (transport, transport_why) = direct
            .form
            .map(|(form, why)| (form.to_string(), why))
            .unzip();
        let relayed = relay.clone().unwrap_or_default();
        let reverse = self.shown.tunnels();
        let traffics = [direct.traffic, relayed.traffic, reverse.traffic];
        let stats = self.stats.snapshot();
        let round_trip = relayed.round_trip().or(direct.round_trip);
        Report {
            pid: std::process::id(),
            command: self.command.clone(),
            since: self.since,
            context: self.about.context.clone(),
            server: self.about.server.clone(),
            namespace: self.about.namespace.clone(),
            transport,
            transport_why,
            relay: relay.as_ref().map(report),
            listening: self.listening.clone(),
            app_connections: stats.live,
            app_connections_total: Some(stats.came()),
            intercepts: self.shown.live(),
            streams: traffics.iter().map(|traffic| traffic.streams).sum(),
            streams_total: traffics.iter().map(|traffic| traffic.streams_total).sum(),
            connections: direct.connections + relayed.tunnels.len() + reverse.tunnels,
            bytes_sent: traffics.iter().map(|traffic| traffic.sent).sum(),
            bytes_received: traffics.iter().map(|traffic| traffic.received).sum(),
            round_trip_ms: round_trip.map(|d| d.as_secs_f64() * 1e3),
            lends: self.lends.clone(),
            uses: None,
        }
    }
}

fn report(status: &PoolStatus) -> RelayReport {
    RelayReport {
        replicas: status.replicas.len(),
        connected: status.connected(),
        trouble: status.trouble.clone(),
        tunnels: status.tunnels.iter().map(tunnel).collect(),
    }
}

fn tunnel(tunnel: &TunnelStatus) -> TunnelReport {
    TunnelReport {
        replica: tunnel.replica.to_string(),
        carrier: tunnel.carrier.to_owned(),
        version: tunnel.program.clone(),
        since: seconds(tunnel.since),
        state: match tunnel.state {
            TunnelState::Open => "open",
            TunnelState::Silent => "silent",
            TunnelState::Draining => "draining",
        }
        .to_owned(),
        streams: tunnel.streams,
        bulk: tunnel.bulk,
        round_trip_ms: tunnel.round_trip.map(|d| d.as_secs_f64() * 1e3),
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
