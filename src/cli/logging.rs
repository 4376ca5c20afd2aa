//! The log on standard error.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::terminal::Log;
use crate::config::LogFormat;

/// Starts the log: warnings by default, with `-v` each connection too, both as sentences; with `-vv`
/// what the modules do. `quiet` leaves the warnings out. Or what `RUST_LOG` says.
pub(super) fn start(verbose: u8, quiet: bool, format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::builder()
            .parse(&text)
            .with_context(|| format!("RUST_LOG={text:?} is no log filter"))?,
        _ => EnvFilter::builder().parse_lossy(match verbose {
            // What goes wrong below is said once, in kdev's words, where it ends; libraries say it for
            // each connection.
            0 if quiet => "error",
            0 => "error,kdev=warn",
            1 => "error,kdev=info",
            2 => "info,kdev=debug",
            _ => "debug,kdev=trace",
        }),
    };
    let sentences = verbose <= 1 && filter.max_level_hint() <= Some(LevelFilter::INFO);
    let json = format == LogFormat::Json;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A terminal that is gone must not end what is to be given back: that is said by a panic.
        .log_internal_errors(false)
        .with_writer(move || Log { json })
        .with_ansi(false);
    match (format, sentences) {
        // Nor does a program that reads the sentences care where in kdev they come from.
        (LogFormat::Json, sentences) => log.with_target(!sentences).json().init(),
        // In the middle of a program's own output: the sentence and nothing else.
        (LogFormat::Text, true) => log.without_time().with_target(false).compact().init(),
        (LogFormat::Text, false) => log.init(),
    }
    Ok(())
}
