//! The container engine, and whether a container reaches a listener of ours. Only `kdev run` with
//! containers needs it, so nothing here fails the whole.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::check::Check;
use super::millis;
use crate::run::container::trial::{Asked, Trial, installed};
use crate::run::container::{ContainerError, Peers};

/// How long the engine may take to tell about itself. A daemon that its socket starts takes
/// seconds.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);
/// How long the containers may take that ask; one takes well below a second.
const ASK_LIMIT: Duration = Duration::from_secs(7);
/// Images that are tried, until one has something to ask with.
const IMAGES: usize = 3;
/// How long one connection to the listener may take to ask.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Longest request that is looked at; what the container sends has 200 bytes at most.
const MAX_REQUEST: u64 = 2 << 10;

const ENGINE: (&str, &str) = ("container.engine", "container engine");
pub(super) const REACH: (&str, &str) = ("container.reach", "containers reach kdev");

/// The command that shows the same by hand.
fn by_hand(engine: &str, image: &str) -> String {
    format!("by hand: `kdev run -- {engine} run --rm {image} curl -s http://SERVICE.NAMESPACE/`")
}

pub(super) async fn checks() -> Vec<Check> {
    let programs = installed();
    if programs.is_empty() {
        let why = "neither docker nor podman nor nerdctl is installed; only containers need one";
        return vec![
            Check::skipped(ENGINE.0, ENGINE.1, why),
            Check::skipped(REACH.0, REACH.1, "there is no engine"),
        ];
    }
    let each = programs.iter().map(|program| async move {
        let prepared = tokio::time::timeout(ENGINE_LIMIT, Trial::prepare(program)).await;
        prepared.unwrap_or_else(|_| {
            Err(ContainerError::Timeout {
                command: (*program).to_owned(),
                after: ENGINE_LIMIT,
            })
        })
    });
    let mut errors = Vec::new();
    let mut ready = None;
    for prepared in futures_util::future::join_all(each).await {
        match prepared {
            Ok(trial) if ready.is_none() => ready = Some(trial),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    match ready {
        Some(trial) => vec![describe(&trial, &errors), reach(&trial).await],
        None => vec![
            unusable(&errors),
            Check::skipped(REACH.0, REACH.1, "the engine does not answer"),
        ],
    }
}

fn describe(trial: &Trial, errors: &[ContainerError]) -> Check {
    let plan = &trial.plan;
    let way = match plan.peers {
        Peers::Containers => "its networks are on this machine",
        Peers::ThisMachine(_) => "rootless, behind a network stack of the user's",
        Peers::Password => "in a virtual machine",
    };
    let mut detail = format!(
        "{}, {way}: containers find kdev at {}",
        trial.engine(),
        plan.advertised_host
    );
    for error in errors {
        detail.push_str(&format!("; not used: {error}"));
    }
    // One that is there is meant by whoever types its name.
    let Some(first) = errors.first() else {
        return Check::ok(ENGINE.0, ENGINE.1, detail);
    };
    let check = Check::warn(ENGINE.0, ENGINE.1, detail);
    check.fix(match first {
        ContainerError::Remote { .. } => "`kdev run` cannot use an engine of another machine",
        _ => "start the other engine too, if you mean to use it with `kdev run`",
    })
}

fn unusable(errors: &[ContainerError]) -> Check {
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let check = Check::warn(ENGINE.0, ENGINE.1, said.join("; "));
    let remote = errors
        .iter()
        .any(|e| matches!(e, ContainerError::Remote { .. }));
    check.fix(if remote {
        "use an engine on this machine"
    } else {
        "start the engine, and see that your user may use it (`docker info`); only containers \
         need it"
    })
}

/// What a container that asked us was seen as.
struct Seen {
    peer: SocketAddr,
    after: Duration,
}

async fn reach(trial: &Trial) -> Check {
    let engine = trial.engine();
    let skipped = |why: String, image: &str| {
        Check::skipped(REACH.0, REACH.1, why).fix(by_hand(&engine, image))
    };
    let listener = match trial.plan.listen.bind(0) {
        Ok(listener) => listener,
        Err(error) => {
            return Check::warn(REACH.0, REACH.1, error.to_string())
                .fix("use an engine on this machine, or its default network");
        }
    };
    let port = match listener.local_addr() {
        Ok(address) => address.port(),
        Err(error) => return skipped(error.to_string(), "IMAGE"),
    };
    let images = match trial.images().await {
        Ok(images) => images,
        Err(error) => return skipped(error.to_string(), "IMAGE"),
    };
    if images.is_empty() {
        return skipped(
            "there is no image here, and none is pulled".to_owned(),
            "curlimages/curl",
        );
    }
    let until = Instant::now() + ASK_LIMIT;
    let mut why = "no image here has a shell and curl, wget, nc, bash or python3".to_owned();
    for image in images.iter().take(IMAGES) {
        // A container's address alone may be anybody's; what it asks for is known to it only.
        let token = format!("kdev-doctor-{:016x}", rand::random::<u64>());
        let began = Instant::now();
        let left = until.saturating_duration_since(began);
        let asking = trial.ask(image, port, &token, left);
        tokio::pin!(asking);
        let seen = tokio::select! {
            // Both may be ready: what was seen counts more.
            biased;
            peer = seen(&listener, &token) => Some(Seen { peer, after: began.elapsed() }),
            asked = &mut asking => match asked {
                Ok(Asked::Unable) => continue,
                Ok(Asked::Failed(said)) => return unreached(trial, port, image, &said),
                Ok(Asked::Answered) => return unreached(trial, port, image, "it was answered by something else"),
                Err(error @ ContainerError::Timeout { .. }) => {
                    return unreached(trial, port, image, &error.to_string());
                }
                Err(error) => {
                    why = error.to_string();
                    break;
                }
            },
        };
        // It has its answer, and ends and is removed by itself.
        if let Err(error) = asking.await {
            tracing::debug!(%error, "the container that asked");
        }
        if let Some(seen) = seen {
            return reached(trial, image, &seen);
        }
    }
    skipped(why, "IMAGE")
}

fn reached(trial: &Trial, image: &str, seen: &Seen) -> Check {
    let detail = format!(
        "a container of {image} reached {} after {}, seen as {}",
        trial.plan.advertised_host,
        millis(seen.after),
        seen.peer.ip()
    );
    match trial.plan.peers {
        Peers::ThisMachine(ip) if ip != seen.peer.ip() => Check::warn(
            REACH.0,
            REACH.1,
            format!("{detail}; kdev would cut it off, since it expects {ip}"),
        )
        .fix("run the engine rootful, or with its default network stack"),
        _ => Check::ok(REACH.0, REACH.1, detail),
    }
}

fn unreached(trial: &Trial, port: u16, image: &str, said: &str) -> Check {
    let host = &trial.plan.advertised_host;
    let fix = match trial.plan.peers {
        Peers::Containers => {
            "a firewall of this machine probably drops what containers send to it: allow it, for \
             example `sudo ufw allow in on docker0`, or with firewalld \
             `sudo firewall-cmd --zone=docker --set-target=ACCEPT --permanent`"
        }
        Peers::ThisMachine(_) => {
            "a firewall of this machine probably drops connections to its own address; allow them"
        }
        Peers::Password => {
            "see that the engine is up to date and gives containers the name of this machine"
        }
    };
    let detail = format!("a container of {image} does not reach {host}:{port}: {said}");
    Check::warn(REACH.0, REACH.1, detail).fix(fix)
}

/// Answers whoever asks until somebody asks for `token`; gives their address.
async fn seen(listener: &TcpListener, token: &str) -> SocketAddr {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, say: the container's own limit ends this.
            tokio::time::sleep(REQUEST_LIMIT / 10).await;
            continue;
        };
        match tokio::time::timeout(REQUEST_LIMIT, answer(stream, token)).await {
            Ok(Ok(true)) => return peer,
            other => tracing::debug!(%peer, ?other, "not the container"),
        }
    }
}

async fn answer(mut stream: TcpStream, token: &str) -> std::io::Result<bool> {
    let mut request = Vec::new();
    let mut some = [0; 512];
    let (mut read, mut write) = stream.split();
    let mut read = (&mut read).take(MAX_REQUEST);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match read.read(&mut some).await? {
            0 => break,
            n => request.extend_from_slice(&some[..n]),
        }
    }
    let text = String::from_utf8_lossy(&request);
    let is_ours = text.starts_with(&format!("GET /{token} "));
    write
        .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
        .await?;
    write.shutdown().await?;
    Ok(is_ours)
}
