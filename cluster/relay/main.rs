//! `kdev-relay`: the relay's program. As process 1 of its container it keeps a worker running,
//! so that a crash costs milliseconds and not a restart of the container, and the listeners for
//! callers open, so that those who come meanwhile wait for the next worker.

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kdev::companion::{COMPANION, HOLD};
use kdev::relay::{Kept, Names, Relay, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// The argument that makes this process the worker.
const WORKER: &str = "worker";
/// A worker that lived so long had a good start: the next one starts at once.
const GOOD_START: Duration = Duration::from_secs(5);
/// The longest pause before the next worker, for one that fails at its start.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let beside = std::env::args()
        .nth(1)
        .is_some_and(|what| [COMPANION, HOLD].contains(&&*what));
    tracing_subscriber::fmt()
        .with_writer(move || -> Box<dyn Write> {
            // A companion's output is its way to kdev.
            match beside {
                true => Box::new(io::stderr()),
                false => Box::new(io::stdout()),
            }
        })
        .json()
        .flatten_event(true)
        // Where nobody reads what is said, it is left unsaid.
        .log_internal_errors(false)
        .with_current_span(false)
        .with_max_level(match std::env::var("KDEV_LOG").as_deref() {
            Ok("debug") => tracing::Level::DEBUG,
            Ok("trace") => tracing::Level::TRACE,
            _ => tracing::Level::INFO,
        })
        .init();
    let mut args = std::env::args().skip(1);
    let result = match (args.next().as_deref(), args.next()) {
        (None, None) => supervise(),
        (Some(WORKER), None) => work(),
        (Some(COMPANION), None) => companion(false),
        (Some(HOLD), None) => companion(true),
        (Some("--version"), None) => {
            // In one piece: `kdev install` finds the version of a program by this text in it.
            println!(concat!("kdev-relay ", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        _ => {
            Err("usage: kdev-relay [worker | hold | companion | --version]; settings come from the environment".into())
        }
    };
    match result {
        Ok(code) => code,
        Err(why) => {
            error!(%why, "the relay cannot run");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn work() -> Outcome {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    // Two threads carry what one node's network does; more would only cost memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut end = signal(SignalKind::terminate())?;
        let relay = Relay::start_with(&settings, Names::system()?, Kept::received()?)?;
        relay
            .run(async move {
                let _ = end.recv().await;
            })
            .await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Catches what programs of this network send, until kdev is gone; `holds` it, until this process is
/// told to end.
fn companion(holds: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut end, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let holding = async {
            let caught = kdev::companion::run(input, output).await;
            if !holds {
                return caught;
            }
            if let Err(error) = caught {
                warn!(%error, "nothing is caught");
            }
            std::future::pending().await
        };
        tokio::select! {
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
            caught = holding => caught?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Keeps a worker running until this process is told to end.
fn supervise() -> Outcome {
    // What no worker could run with ends the container, so that Kubernetes shows the reason.
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut pause = FIRST_PAUSE;
        let kept = Kept::listen(&settings)?;
        loop {
            let (mut worker, began) = (start(&kept)?, Instant::now());
            let status = tokio::select! {
                status = worker.wait() => status?,
                _ = terminate.recv() => return end(worker, kept).await,
                _ = interrupt.recv() => return end(worker, kept).await,
            };
            if status.success() {
                return Ok(ExitCode::SUCCESS);
            }
            warn!(%status, "the worker ended; another one starts");
            pause = match began.elapsed() >= GOOD_START {
                true => FIRST_PAUSE,
                false => (pause * 2).min(LONGEST_PAUSE),
            };
            if began.elapsed() < GOOD_START {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                }
            }
        }
    })
}

fn start(kept: &Kept) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg(WORKER)
        .stdin(kept.hand_over()?)
        .kill_on_drop(true)
        .spawn()
}

/// Lets the worker end in its own time; the kubelet's grace period bounds it.
async fn end(mut worker: Child, kept: Kept) -> Outcome {
    info!("ending");
    // The worker alone decides from here on how long callers are taken.
    drop(kept);
    if let Some(id) = worker.id().and_then(|id| i32::try_from(id).ok()) {
        // One that is gone already needs no signal.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
    let status = worker.wait().await?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
