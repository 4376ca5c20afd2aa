//! How far the API server is. Nothing here fails: a slow way is a way.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::{millis, within};
use crate::k8s::{Client, ClientError, measure};

/// How many small requests the round trip is the median of.
const SAMPLES: usize = 5;
/// How long they may take together; more than 0.5 s each is slow enough to say so.
const ROUND_TRIP_LIMIT: Duration = Duration::from_millis(2500);
/// How long the download may go on.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(2);
/// How long the API server may take to make up what is downloaded.
const BEGIN_LIMIT: Duration = Duration::from_secs(1);
/// A document smaller than this says nothing about throughput.
const MIN_DOWNLOAD: u64 = 256 << 10;

const ID: &str = "speed";
const TITLE: &str = "way to the API server";

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped(ID, TITLE, why)
}

/// The round trip, or why it was not measured.
pub(super) type RoundTrip = Result<Duration, Unmeasured>;

/// Why there is no round trip.
pub(super) enum Unmeasured {
    /// The way is slow.
    Slow,
    /// It broke.
    Broken(ClientError),
}

pub(super) async fn round_trip(client: &Client, until: Instant) -> RoundTrip {
    let measured = measure::round_trip(client, SAMPLES);
    match within(ROUND_TRIP_LIMIT, until, measured).await {
        Ok(Ok(round_trip)) => Ok(round_trip),
        Ok(Err(error)) => Err(Unmeasured::Broken(error)),
        Err(_) => Err(Unmeasured::Slow),
    }
}

/// Measures throughput as well.
pub(super) async fn check(client: &Client, round_trip: RoundTrip, until: Instant) -> Check {
    let download = measure::download(client, DOWNLOAD_LIMIT);
    let download = within(BEGIN_LIMIT + DOWNLOAD_LIMIT, until, download).await;
    let throughput = match download {
        Ok(Ok(download)) if download.bytes >= MIN_DOWNLOAD => {
            format!(
                "{:.1} MB/s down ({:.1} MB in {})",
                download.rate() / 1e6,
                download.bytes as f64 / 1e6,
                millis(download.took)
            )
        }
        Ok(Ok(_)) => "throughput not measured: the API server has nothing large".to_owned(),
        Ok(Err(ClientError::Status { code: 403, .. })) => {
            "throughput not measured: what is large enough is kept from this user".to_owned()
        }
        Ok(Err(error)) => format!("throughput not measured: {error}"),
        Err(_) => "throughput not measured: the API server is too slow".to_owned(),
    };
    match round_trip {
        Ok(round_trip) => Check::ok(
            ID,
            TITLE,
            format!(
                "round trip {} (median of {SAMPLES}), {throughput}",
                millis(round_trip)
            ),
        ),
        Err(Unmeasured::Broken(error)) => Check::warn(
            ID,
            TITLE,
            format!("round trip not measured: {error}; {throughput}"),
        ),
        Err(Unmeasured::Slow) => Check::warn(
            ID,
            TITLE,
            format!(
                "{SAMPLES} small requests took more than {}, {throughput}",
                millis(ROUND_TRIP_LIMIT)
            ),
        )
        .fix("expect slow first bytes; a nearer VPN gateway or a wired network helps"),
    }
}
