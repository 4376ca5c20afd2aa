//! What is measured of a way into a pod.

use std::time::Duration;

use super::load::{Via, bulk_down, bulk_up, closed_requests, first_bytes};
use super::process::Running;
use super::report::Column;

/// New connections per round whose first byte is timed.
const FIRST_BYTES: usize = 200;
/// How long closed requests are made.
const CLOSED_TIME: Duration = Duration::from_secs(4);

const FIRST_BYTE_P50: &str = "first byte of a new connection, p50, ms";
const FIRST_BYTE_P99: &str = "first byte of a new connection, p99, ms";
const CLOSED_1: &str = "new connection per request, 1 at a time, per s";
const CLOSED_32: &str = "new connection per request, 32 at a time, per s";
const TO_END_32: &str = "the same, waiting for the pod's end of file, per s";
const DOWN_1: &str = "download, 1 stream, MB/s";
const DOWN_8: &str = "download, 8 streams, MB/s";
const DOWN_64: &str = "download, 64 streams, MB/s";
const UP_1: &str = "upload, 1 stream, MB/s";
const CPU_DOWN: &str = "CPU of the process per GiB down, s";
const CPU_UP: &str = "CPU of the process per GiB up, s";
pub(crate) const MEMORY_IDLE: &str = "resident memory, idle, MiB";
const MEMORY_LOAD: &str = "resident memory after 64 streams, MiB";

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// One round: all figures of one way, with bulk transfers of `mib`.
pub(crate) async fn measure(column: &mut Column, via: &Via, running: Option<&Running>, mib: u64) {
    let times = first_bytes(via, FIRST_BYTES).await;
    column.add(FIRST_BYTE_P50, percentile(&times, 0.50));
    column.add(FIRST_BYTE_P99, percentile(&times, 0.99));
    for (figure, at_once, to_end) in [
        (CLOSED_1, 1, false),
        (CLOSED_32, 32, false),
        (TO_END_32, 32, true),
    ] {
        column.add(
            figure,
            closed_requests(via, at_once, to_end, CLOSED_TIME).await,
        );
    }
    let cpu = |running: Option<&Running>| running.map(Running::cpu_seconds);
    for (figure, cost, streams) in [
        (DOWN_1, Some(CPU_DOWN), 1),
        (DOWN_8, None, 8),
        (DOWN_64, None, 64),
    ] {
        let before = cpu(running);
        let rate = bulk_down(via, streams, mib).await;
        column.add(figure, rate);
        if let (Some(cost), Some(before), Some(after)) = (cost, before, cpu(running)) {
            column.add(cost, (after - before) / (mib as f64 / 1024.0));
        }
    }
    if let Some(running) = running {
        column.add(MEMORY_LOAD, running.resident_mib());
    }
    let before = cpu(running);
    column.add(UP_1, bulk_up(via, mib).await);
    if let (Some(before), Some(after)) = (before, cpu(running)) {
        column.add(CPU_UP, (after - before) / (mib as f64 / 1024.0));
    }
}

/// A percentile in milliseconds.
pub(crate) fn percentile(times: &[Duration], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = ((sorted.len() - 1) as f64 * at).round() as usize;
    sorted[index].as_secs_f64() * 1e3
}
