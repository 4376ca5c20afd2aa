//! `kdev status`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;

use super::output;
use crate::app::registry::{self, Report};

const EXAMPLES: &str = "\
Examples:
  kdev status          the kdev sessions of this user on this machine
  kdev status --json   the same for scripts, an array";

/// Show the sessions of this machine
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
        println!("{}", serde_json::to_string_pretty(&sessions)?);
        return Ok(0);
    }
    if sessions.is_empty() {
        println!("No session is running. `kdev run -- COMMAND` starts one.");
    }
    for session in &sessions {
        print(session);
    }
    Ok(0)
}

fn print(report: &Report) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let age = Duration::from_secs(now.saturating_sub(report.since));
    println!(
        "kdev {} (pid {}), for {}",
        report.command,
        report.pid,
        span(age)
    );
    println!(
        "  cluster    {} ({}), namespace {}",
        report.context, report.server, report.namespace
    );
    match (&report.transport, &report.transport_why) {
        (Some(form), Some(why)) => println!("  transport  direct, {form} ({why})"),
        _ => println!("  transport  direct, not used yet"),
    }
    for listening in &report.listening {
        let target = listening
            .target
            .as_ref()
            .map_or_else(String::new, |t| format!(" -> {t}"));
        println!("  {:<10} {}{target}", listening.purpose, listening.address);
    }
    println!(
        "  streams    {} open, {} in all, over {} connections",
        report.streams, report.streams_total, report.connections
    );
    println!(
        "  bytes      {} sent, {} received",
        output::bytes(report.bytes_sent),
        output::bytes(report.bytes_received)
    );
    if let Some(ms) = report.round_trip_ms {
        println!("  round trip {ms:.1} ms");
    }
}

fn span(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}
