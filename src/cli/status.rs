//! `kdev status`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;

use super::output;
use super::terminal::word;
use crate::app::registry::{self, Found, InterceptReport, Report, TunnelReport};

const EXAMPLES: &str = "\
Examples:
  kdev status          each session, its tunnels, ports and intercepts
  kdev status --json   an array, for scripts";

/// Show your kdev sessions on this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<u8> {
    let sessions = registry::sessions()
        .await
        .context("cannot look for sessions")?;
    if args.json {
        output::json(&sessions, true)?;
        return Ok(0);
    }
    if sessions.is_empty() {
        output::line("No session is running. `kdev run -- COMMAND` starts one.")?;
    }
    for session in &sessions {
        match session {
            Found::Answers(report) => output::line(describe(report).trim_end())?,
            Found::Silent { pid, .. } => output::line(&format!(
                "kdev (pid {pid}) does not answer: it is stopped, or too busy"
            ))?,
        }
    }
    Ok(0)
}

fn describe(report: &Report) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let age = span(Duration::from_secs(now.saturating_sub(report.since)));
    // A kubeconfig may come from anybody.
    let (context, server) = (word(&report.context), word(&report.server));
    if let Some(lender) = report.uses {
        return format!(
            "kdev {} (pid {}), for {age}\n\
             \x20 cluster    {} ({}), namespace {}\n\
             \x20 session    that of kdev connect (pid {lender})\n",
            report.command, report.pid, context, server, report.namespace
        );
    }
    let transport = transport(report);
    let mut text = format!(
        "kdev {} (pid {}), for {age}\n\
         \x20 cluster    {} ({}), namespace {}\n\
         \x20 transport  {transport}\n",
        report.command, report.pid, context, server, report.namespace
    );
    for tunnel in report.relay.iter().flat_map(|relay| &relay.tunnels) {
        text += &describe_tunnel(tunnel, now);
    }
    for listening in &report.listening {
        let target = listening
            .target
            .as_ref()
            .map_or_else(String::new, |t| format!(" -> {t}"));
        text += &format!(
            "  {:<10} {}{target}\n",
            listening.purpose, listening.address
        );
    }
    for intercept in &report.intercepts {
        text += &describe_intercept(intercept);
    }
    text += &format!(
        "  streams    {} open, {} in all, over {} connections\n\
         \x20 bytes      {} sent, {} received\n",
        report.streams,
        report.streams_total,
        report.connections,
        output::bytes(report.bytes_sent),
        output::bytes(report.bytes_received)
    );
    if let Some(ms) = report.round_trip_ms {
        text += &format!("  round trip {ms:.1} ms\n");
    }
    text
}

/// How streams reach the cluster, and why so.
fn transport(report: &Report) -> String {
    let direct = match (&report.transport, &report.transport_why) {
        (Some(form), Some(why)) => format!("direct, {form} ({why})"),
        _ => "direct, not used yet".to_owned(),
    };
    match &report.relay {
        None => direct,
        Some(relay) if relay.connected > 0 => {
            format!("relay, {} of {} replicas", relay.connected, relay.replicas)
        }
        Some(relay) => match &relay.trouble {
            Some(trouble) => format!("{direct}; no relay: {}", word(trouble)),
            None => format!("{direct}; no tunnel to a relay yet"),
        },
    }
}

fn describe_tunnel(tunnel: &TunnelReport, now: u64) -> String {
    let age = span(Duration::from_secs(now.saturating_sub(tunnel.since)));
    let round_trip = tunnel.round_trip_ms;
    let round_trip = round_trip.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
    let state = match tunnel.state.as_str() {
        "open" => String::new(),
        state => format!(", {state}"),
    };
    let bulk = if tunnel.bulk { ", bulk" } else { "" };
    format!(
        "  tunnel     {} (relay {}, {}), for {age}: {} streams{round_trip}{bulk}{state}\n",
        tunnel.replica, tunnel.version, tunnel.carrier, tunnel.streams
    )
}

fn describe_intercept(intercept: &InterceptReport) -> String {
    let InterceptReport {
        id,
        service,
        namespace,
        port,
        conditions,
        mirror,
        app,
        requests,
    } = intercept;
    let copies = if *mirror { "copies of " } else { "" };
    let requests = match requests {
        1 => "1 request".to_owned(),
        many => format!("{many} requests"),
    };
    format!(
        "  intercept  {service}.{namespace} port {port} -> {app}: {copies}{conditions}, {requests} \
         (claim {id})\n"
    )
}

fn span(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}
