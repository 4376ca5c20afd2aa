//! Readers that are slow, or that stop: others are not held up, and nothing is cut.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::app::{Sha256, Stream, Way};
use crate::lab;
use crate::program::Running;

/// Downloads that stop reading.
const STALLED: usize = 8;
/// The part of its speed alone that a download beside them keeps.
const KEPT: f64 = 0.8;
/// Measurements of each; their medians are compared, since the machine has other things to do.
const MEASURED: usize = 7;

const BIG: u64 = 1 << 30;
/// Bytes a second of the slow reader.
const SLOW: f64 = 5e6;
/// And after its pause, unless all of it is to be slow.
const FASTER: f64 = 40e6;
/// Bytes before the pause.
const BEFORE_PAUSE: u64 = 100_000_000;
const PAUSE: Duration = Duration::from_secs(60);

/// Reads to the end, not faster than `rate` bytes a second.
async fn read(stream: &mut Stream, sum: &mut Sha256, bytes: u64, rate: f64) {
    let begun = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    let mut done = 0_u64;
    while done < bytes {
        let want = buffer.len().min((bytes - done) as usize);
        let n = stream.read(&mut buffer[..want]).await.unwrap();
        assert!(n > 0, "cut after {done} of {bytes} bytes");
        sum.update(&buffer[..n]);
        done += n as u64;
        let due = Duration::from_secs_f64(done as f64 / rate);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
}

/// Megabytes a second of one download.
async fn speed(way: Way, target: &str) -> f64 {
    let begun = Instant::now();
    let (mut stream, length) = way.download(target, "/medium").await.unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    while done < length {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "cut after {done} of {length} bytes");
        done += n as u64;
    }
    length as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The best known way to compare two things on a machine that is not quiet: in turns.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn readers_that_stop_hold_nobody_up() {
    lab::settle();
    // All go to one pod, so to the same connections as far as kdev lets them.
    let (_, address) = lab::pod_address("web");
    let target = format!("{address}:8080");
    let quiet = Running::connect("dev");
    let busy = Running::connect("dev");
    let (alone, beside) = (Way::Socks5(quiet.proxy()), Way::Socks5(busy.proxy()));
    let mut stalled = JoinSet::new();
    for _ in 0..STALLED {
        let (target, mut begun) = (target.clone(), vec![0; 4 << 20]);
        stalled.spawn(async move {
            let mut stream = beside.open(&target).await.unwrap();
            let head = beside.head("GET", &target, "/big") + "\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            // Far enough to be under way; then never again. Those that began in one moment
            // share a connection, so one that stops early may keep another from that.
            let begins = stream.read_exact(&mut begun);
            let _ = tokio::time::timeout(Duration::from_secs(1), begins).await;
            stream
        });
    }
    let stalled = stalled.join_all().await;
    // Until every buffer on the way is full.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..MEASURED {
        without.push(speed(alone, &target).await);
        with.push(speed(beside, &target).await);
    }
    let (without, with) = (median(without), median(with));
    println!(
        "{with:.0} MB/s beside {} stalled downloads, {without:.0} MB/s alone, {:.2}; {} MB resident",
        stalled.len(),
        with / without,
        busy.memory() / 1_000_000
    );
    assert!(with >= KEPT * without, "{with:.0} of {without:.0} MB/s");
    drop(stalled);
    // They were given up, not forgotten: the connections are free again.
    assert_eq!(beside.get(&target, "/").await.unwrap().status, 200);
    quiet.stop();
    busy.stop();
}

/// A gigabyte at 5 MB/s with a minute of silence in it, which takes four and a half minutes: in the
/// full run. Else only the part before the silence is read that slowly, a tenth, and the rest at 40 MB/s: the silence meets the same full buffers, and what is then in them and in the
/// network has to arrive as it was.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_slow_reader_that_pauses_for_a_minute_gets_it_all() {
    let after = if lab::full() { SLOW } else { FASTER };
    let connect = Running::connect("dev");
    let forward = Running::forward("dev", &["web.shop:80"]);
    let ways = [Way::Socks5(connect.proxy()), Way::Port(forward.port(0))];
    let reading = ways.map(|way| async move {
        let sums = way.get("web.shop:80", "/SHA256SUMS").await.unwrap().text();
        let begun = Instant::now();
        let (mut stream, length) = way.download("web.shop:80", "/big").await.unwrap();
        assert_eq!(length, BIG);
        let mut sum = Sha256::new();
        read(&mut stream, &mut sum, BEFORE_PAUSE, SLOW).await;
        tokio::time::sleep(PAUSE).await;
        // Meanwhile others go through.
        assert_eq!(way.get("web.shop:80", "/").await.unwrap().status, 200);
        read(&mut stream, &mut sum, BIG - BEFORE_PAUSE, after).await;
        let expected = sums.lines().find(|l| l.ends_with(" big")).unwrap();
        assert!(expected.starts_with(&sum.hex()), "other bytes arrived");
        println!("{way:?}: 1 GiB in {:?}", begun.elapsed());
    });
    reading.into_iter().collect::<JoinSet<_>>().join_all().await;
    connect.stop();
    forward.stop();
}
