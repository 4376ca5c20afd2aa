//! Whether a container really reaches a listener of this machine: one is started that asks.
//!
//! Only a container can tell. The rules of a firewall may be read by root alone, and what a
//! connection of this machine's own meets is not what one from the container's network meets.
//! The user's container cannot tell either: a program that asks for nothing looks the same as one
//! that is cut off.
//!
//! The container costs about half a second, so it is started while the session to the cluster is
//! being opened, which takes as long. Nothing is remembered from one run to the next: a firewall
//! that is switched on in between is what the probe is there to find.

mod heard;
mod said;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use self::heard::heard;
use self::said::{Said, read};
use super::engine::Engine;
use super::{ContainerError, Peers, Plan, Unreached};

/// How long the engine may take to say which images it has.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// How long removing a container may take that did not end by itself. What is slower is left to
/// end, and to its `--rm`.
const REMOVE_LIMIT: Duration = Duration::from_secs(1);
/// Images that are tried, until one has something to ask with.
const IMAGES: usize = 3;
/// Parts of the names of images that mostly have a shell and something to ask with.
const LIKELY: [&str; 8] = [
    "busybox", "alpine", "curl", "tools", "debian", "ubuntu", "python", "nginx",
];
/// How long after a container said that it asks it must have been heard. From its word to its first
/// packet it takes some ten milliseconds, and the packet crosses a bridge in less than one: this is
/// a hundred times as much, for busy machines and for network stacks in user space, and leaves room
/// for a second packet, which goes out after a second.
const UNHEARD: Duration = Duration::from_millis(1500);
/// How long to listen on after the container has ended: its connection may be there already, and
/// not be read yet.
const LATE: Duration = Duration::from_millis(100);
/// The exit code of [`SCRIPT`] when its time is over: the signal that ends what asks.
const OUT_OF_TIME: i32 = 128 + 15;
/// What is said of a container that asked and was not heard.
const NO_ANSWER: &str = "no answer to its connection";
/// Asks `http://$1:$2/$3` with whatever the image has (`$4` is the host as a URL has it), and never
/// through a proxy that somebody's configuration puts into containers. A program that crashes gives
/// way to the next: those that are linked statically do it at the first look-up of a name.
///
/// It ends by itself within two seconds, kdev or no kdev: the shell is the container's first process,
/// and with it all ends. Where the image has no `sleep`, the kernel's own patience with a connection
/// ends it.
const SCRIPT: &str = r#"
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
export LC_ALL=C
ask() {
  program=$1; shift
  case $program in
  curl) exec curl -q -sS -m 2 "http://$4:$2/$3" ;;
  wget)
    options=-q; case $(wget --help 2>&1) in *--tries*) options='-nv -t 1 --no-proxy' ;; esac
    exec wget $options -T 2 -O - "http://$4:$2/$3" ;;
  nc) printf 'GET /%s HTTP/1.0\r\n\r\n' "$3" | nc -w 2 "$1" "$2" ;;
  bash)
    exec bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf "GET /%s HTTP/1.0\r\n\r\n" "$3" >&3 && read -r -t 2 -u 3 line' bash "$@" ;;
  python3)
    exec python3 -c 'import sys, urllib.request as u; u.urlopen("http://%s:%s/%s" % (sys.argv[4], sys.argv[2], sys.argv[3]), timeout=2)' "$@" ;;
  esac
}
for program in curl wget nc bash python3; do
  command -v $program >/dev/null 2>&1 || continue
  echo asking
  ask $program "$@" &
  asked=$!
  (sleep 2 && kill "$asked") >/dev/null 2>&1 &
  wait "$asked"
  code=$?
  if [ $code -lt 126 ] || [ $code -eq 143 ]; then exit $code; fi
done
exit 97
"#;

/// What a container found.
#[derive(Clone, Debug)]
pub enum Finding {
    /// It reached the listener.
    Reached {
        /// Its image.
        image: String,
        /// What it was seen as.
        peer: SocketAddr,
        /// How long that took.
        after: Duration,
    },
    /// It asked and was not heard, or would be cut off.
    Unreached(Unreached),
    /// Nothing was found out; why.
    Untold(String),
}

/// What the containers of one probe share.
struct Asking<'a> {
    listener: &'a TcpListener,
    port: u16,
    session: &'a str,
    until: Instant,
}

impl Plan {
    /// Starts a container on the network of the user's that asks `listener`, and removes it again.
    /// Nobody else may accept connections meanwhile. No image is pulled for it.
    ///
    /// It takes `limit` at most, plus what the engine takes to remove a container that hangs.
    /// Dropped, it leaves a container that ends and is removed by itself.
    pub async fn probe(&self, listener: &TcpListener, session: &str, limit: Duration) -> Finding {
        if self.link.shares_host {
            return Finding::Untold("the container shares this machine's network".to_owned());
        }
        let port = match listener.local_addr() {
            Ok(address) => address.port(),
            Err(error) => return Finding::Untold(error.to_string()),
        };
        let until = Instant::now() + limit;
        let asking = Asking {
            listener,
            port,
            session,
            until,
        };
        let own = self.image_here.then_some(&self.run.image);
        if let Some(image) = own
            && let Some(finding) = self.ask(image, &asking).await
        {
            return finding;
        }
        let listed = match timeout_at(until, local_images(&self.run.engine)).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => return Finding::Untold(error.to_string()),
            Err(_) => return Finding::Untold("the engine takes too long".to_owned()),
        };
        let others = listed.iter().filter(|image| Some(*image) != own);
        for image in others.take(IMAGES) {
            if let Some(finding) = self.ask(image, &asking).await {
                return finding;
            }
        }
        Finding::Untold(if own.is_none() && listed.is_empty() {
            "there is no image here, and none is pulled".to_owned()
        } else {
            "no image here has a shell and curl, wget, nc, bash or python3".to_owned()
        })
    }

    /// What a container of `image` finds; `None` where it has nothing to ask with.
    async fn ask(&self, image: &str, asking: &Asking<'_>) -> Option<Finding> {
        let engine = &self.run.engine;
        // An address alone may be anybody's; what the container asks for is known to it only.
        let token = format!("kdev-probe-{:016x}", rand::random::<u64>());
        let name = format!("kdev-probe-{:08x}", rand::random::<u32>());
        let began = Instant::now();
        let args = self.probe_args(image, &name, &token, asking);
        let mut child = match engine.question(args).spawn() {
            Ok(child) => child,
            Err(error) => return Some(Finding::Untold(error.to_string())),
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut came = None;
        let anybody = AtomicBool::new(false);
        let (asks, asking_now) = oneshot::channel();
        let waiting = async {
            let mut heard = pin!(heard(asking.listener, &token, &anybody));
            let mut ended = pin!(async {
                let said = read(out, err, asks).await;
                child.wait().await.map(|status| Ended { status, said })
            });
            tokio::select! {
                // Several may be ready: what was heard counts more.
                biased;
                peer = &mut heard => {
                    came = Some((peer, began.elapsed()));
                    // It has its answer, and ends by itself. While it is there it may have the
                    // very address that the user's container is to get (`--ip`).
                    Some(ended.await)
                }
                ended = &mut ended => {
                    if let Ok(peer) = timeout(LATE, heard).await {
                        came = Some((peer, began.elapsed()));
                    }
                    Some(ended)
                }
                () = too_late(asking_now) => None,
            }
        };
        let ended = timeout_at(asking.until, waiting).await;
        if !matches!(ended, Ok(Some(_))) {
            remove(engine, &name).await;
        }
        let unreached = |said: &str| Finding::Unreached(self.unreached(image, asking.port, said));
        let unheard = |said: &str| {
            if anybody.load(Ordering::Relaxed) {
                // It may have been the container, with words that are not understood.
                return Finding::Untold(format!(
                    "somebody connected, and a container failed: {said}"
                ));
            }
            unreached(said)
        };
        if let Some((peer, after)) = came {
            return Some(match self.peers {
                Peers::ThisMachine(ip) if ip.to_canonical() != peer.ip().to_canonical() => {
                    let said = format!(
                        "it comes from {}, which may be another machine, so kdev cuts it off",
                        peer.ip()
                    );
                    unreached(&said)
                }
                _ => Finding::Reached {
                    image: image.to_owned(),
                    peer,
                    after,
                },
            });
        }
        let Ended { status, said } = match ended {
            Ok(Some(Ok(ended))) => ended,
            Ok(Some(Err(error))) => return Some(Finding::Untold(error.to_string())),
            Ok(None) => return Some(unheard(NO_ANSWER)),
            Err(_) => {
                let why = format!("a container of {image} takes too long");
                return Some(Finding::Untold(why));
            }
        };
        if !said.asked {
            tracing::debug!(image, %status, last = said.last, "it cannot ask");
            return None;
        }
        Some(match status.code() {
            // Something else answered, or what asked did not wait for the answer.
            Some(0) => Finding::Untold(format!("a container of {image} was answered by another")),
            Some(OUT_OF_TIME) => unheard(NO_ANSWER),
            // Not every failure is the network's.
            _ => match said.failure {
                Some(failure) => unheard(&failure),
                None => {
                    tracing::debug!(image, %status, last = said.last, "it fails to ask");
                    return None;
                }
            },
        })
    }

    fn probe_args(
        &self,
        image: &str,
        name: &str,
        token: &str,
        asking: &Asking<'_>,
    ) -> Vec<OsString> {
        let mut args: Vec<String> = ["run", "--rm", "--pull", "never", "--name", name]
            .map(str::to_owned)
            .to_vec();
        args.extend(["--label".to_owned(), Self::label(asking.session)]);
        if let Some(network) = &self.link.network {
            args.extend(["--network".to_owned(), network.clone()]);
        }
        // What the user's flags make of names counts for the proxy's as well.
        for entry in &self.run.flags.add_hosts {
            args.extend(["--add-host".to_owned(), entry.clone()]);
        }
        if self.run.flags.no_hosts {
            args.push("--no-hosts".to_owned());
        }
        let host = &self.advertised_host;
        let in_url = match host.parse() {
            Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => host.clone(),
        };
        let port = asking.port.to_string();
        let fixed = ["--entrypoint", "sh", image, "-c", SCRIPT, "sh"].map(str::to_owned);
        args.extend(fixed);
        args.extend([host.clone(), port, token.to_owned(), in_url]);
        args.into_iter().map(OsString::from).collect()
    }
}

/// The images that are here, those that will likely do first.
async fn local_images(engine: &Engine) -> Result<Vec<String>, ContainerError> {
    let args = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
    let Ok(listed) = timeout(LIST_LIMIT, engine.ask(&args)).await else {
        return Err(ContainerError::Timeout {
            command: format!("{} image ls", engine.name()),
            after: LIST_LIMIT,
        });
    };
    let listed = listed?;
    let named = |name: &&str| !name.is_empty() && !name.contains("<none>");
    let mut images: Vec<String> = listed.lines().filter(named).map(str::to_owned).collect();
    let rank = |name: &String| LIKELY.iter().position(|part| name.contains(part));
    images.sort_by_key(|name| rank(name).unwrap_or(LIKELY.len()));
    images.dedup();
    Ok(images)
}

/// What a container that ended leaves.
struct Ended {
    status: ExitStatus,
    said: Said,
}

/// Completes when a container that asks should have been heard long ago. Never, where it does not
/// come to ask.
async fn too_late(asks: oneshot::Receiver<()>) {
    match asks.await {
        Ok(()) => tokio::time::sleep(UNHEARD).await,
        Err(_) => std::future::pending().await,
    }
}

/// Ends a container that did not end by itself: its own `--rm` comes too late for whoever looks now,
/// or wants its address.
async fn remove(engine: &Engine, name: &str) {
    let remove = engine.question(["rm", "--force", name]).output();
    match timeout(REMOVE_LIMIT, remove).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, name, "the container is left to --rm"),
        Err(_) => tracing::debug!(name, "the container is left to --rm"),
    }
}
