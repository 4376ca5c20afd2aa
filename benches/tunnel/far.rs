//! A cluster that is far away.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::delay::Line;
use super::load::{Via, bulk_down, bulk_up, first_bytes};
use super::measure::percentile;
use super::process::{Pod, Running};
use super::relay::NAMESPACE;
use super::report::Column;

/// New connections whose first byte is timed.
const FIRST_BYTES: usize = 40;
/// Small requests alone and beside bulk.
const SMALL: usize = 100;
/// MiB of one stream.
const MIB: u64 = 256;

/// Compares kubectl and kdev over a line of `round_trip`.
pub(crate) async fn compare(
    kubeconfig: &Path,
    pod: &Pod,
    node: IpAddr,
    round_trip: Duration,
) -> [Column; 2] {
    let server = server(kubeconfig);
    let line = Line::new(server, round_trip).await;
    let far = over(kubeconfig, server, line.address);
    let mut columns = [
        Column::new("kubectl port-forward"),
        Column::new("kdev by the relay"),
    ];
    let kubectl = Running::kubectl(&far, pod).await;
    let inside: SocketAddr = format!("{}:8080", pod.ip).parse().unwrap();
    let rule = format!("{node}/32");
    let flags = ["-n", NAMESPACE, "--via", "relay", "--also-proxy", &rule];
    let connect = Running::connect(&far, &flags).await;
    let ways = [
        Via::Port(kubectl.address),
        Via::Socks(connect.address, inside),
    ];
    for (column, via) in columns.iter_mut().zip(&ways) {
        first_bytes(via, 5).await;
        let known = first_bytes(via, FIRST_BYTES).await;
        let trips = |ms: f64| ms / 1e3 / round_trip.as_secs_f64();
        column.add(
            "first byte, known destination, p50, round trips",
            trips(percentile(&known, 0.5)),
        );
        let rate = bulk_down(via, 1, MIB).await;
        column.add("download, 1 stream, Mbit/s", rate * 8.0);
        // The relay has granted little until then: its windows grow with their use.
        let rate = bulk_up(via, MIB).await;
        column.add("upload, 1 stream, Mbit/s", rate * 8.0);
        let alone = small(via, SMALL).await;
        column.add("small request alone, p95, ms", percentile(&alone, 0.95));
        let bulk = tokio::spawn({
            let via = via.clone();
            async move { bulk_down(&via, 1, 4 * MIB).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let beside = small(via, SMALL).await;
        column.add(
            "small request beside a download, p95, ms",
            percentile(&beside, 0.95),
        );
        bulk.abort();
    }
    let unknown = unknown(connect.address, node).await;
    let trips = percentile(&unknown, 0.5) / 1e3 / round_trip.as_secs_f64();
    columns[1].add("first byte, unknown destination, p50, round trips", trips);
    drop(line);
    let _ = std::fs::remove_file(far);
    columns
}

/// Times of requests on one connection that stays open.
async fn small(via: &Via, count: usize) -> Vec<Duration> {
    let mut stream = via.connect().await;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 2048];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        times.push(began.elapsed());
        // A human's pace, or the requests would be a bulk of their own.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}

/// First bytes of a server that no Service or pod stands for.
async fn unknown(proxy: SocketAddr, node: IpAddr) -> Vec<Duration> {
    let listener = tokio::net::TcpListener::bind((node, 0)).await.unwrap();
    let via = Via::Socks(proxy, listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 512];
                let _ = stream.read(&mut request).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await;
                let _ = stream.read(&mut request).await;
            });
        }
    });
    let times = first_bytes(&via, FIRST_BYTES).await;
    serving.abort();
    times
}

/// The address of the API server of a kubeconfig of the lab.
fn server(kubeconfig: &Path) -> SocketAddr {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let rest = text.split("https://").nth(1).unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

/// A copy of the kubeconfig that goes over the line.
fn over(kubeconfig: &Path, server: SocketAddr, line: SocketAddr) -> PathBuf {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let copy = kubeconfig.with_extension(format!("far-{}", line.port()));
    std::fs::write(&copy, text.replace(&server.to_string(), &line.to_string())).unwrap();
    copy
}
