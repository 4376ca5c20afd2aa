//! The helper that makes the namespaces and stays in them.
//!
//! It ends with kdev. Where kdev ended without a word, by SIGKILL above all, it ends what runs in
//! the namespace too: nothing there has a network any more, and nobody would know what it is.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use socket2::Type;

use super::rules::Rules;
use super::sockets::{bound, datagrams, inside, listener, port};
use super::wire::{Answer, At as _, Failure, Made, Request, Step, Talk};
use super::{CATCH_V4, DNS, files, namespace, network};
use crate::io::listening::questions;

/// How long what runs in the namespace may take to end by SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// The name of this helper among the arguments.
pub const AGENT: &str = "agent";
/// How often what does not end is killed.
const KILLS: usize = 100;

/// Serves kdev, which is at the other end of standard input. Gives the exit code.
pub(super) fn run() -> u8 {
    // Ctrl-C is the command's business. Fails where it leads a session already.
    let _ = setsid();
    let Ok(kdev) = io::stdin().as_fd().try_clone_to_owned() else {
        return 1;
    };
    let outside = network_of("self");
    if let Ok(Ended::Asked) = serve(&mut kdev.into()) {
        return 0;
    }
    // What runs in the machine's own network is not the command's.
    if let (Some(outside), Some(inside)) = (outside, network_of("self"))
        && outside != inside
    {
        end_all(&inside);
    }
    1
}

enum Ended {
    /// kdev said so.
    Asked,
    /// kdev is gone.
    Lost,
}

fn serve(kdev: &mut Talk) -> io::Result<Ended> {
    let mut rules = None;
    let mut covered = Vec::new();
    loop {
        let Some((request, _)) = kdev.receive::<Request>()? else {
            return Ok(Ended::Lost);
        };
        match request {
            Request::Leave => return Ok(Ended::Asked),
            Request::Make { world_v6 } => match make(world_v6) {
                Ok((made, descriptors, made_rules)) => {
                    rules = Some(made_rules);
                    let beside: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
                    kdev.send(&Answer::Made(made), &beside)?;
                }
                Err(failure) => kdev.send(&Answer::Failed(failure), &[])?,
            },
            Request::Files(all) => {
                answer(kdev, files::cover(&all).at(Step::Files))?;
                covered = all;
            }
            Request::Keep => answer(kdev, files::keep(&covered).at(Step::Files))?,
            Request::Ports(ports) => {
                let set = rules
                    .as_mut()
                    .map_or(Ok(()), |rules| rules.set_ports(ports));
                answer(kdev, set.at(Step::Rules))?;
            }
            Request::Socket { v6, datagram } => match inside(v6, datagram).at(Step::Sockets) {
                Ok(socket) => kdev.send(&Answer::Done, &[socket.as_fd()])?,
                Err(failure) => kdev.send(&Answer::Failed(failure), &[])?,
            },
        }
    }
}

fn answer(kdev: &Talk, done: Result<(), Failure>) -> io::Result<()> {
    let answer = done.map_or_else(Answer::Failed, |()| Answer::Done);
    kdev.send(&answer, &[])
}

fn make(world_v6: bool) -> Result<(Made, Vec<OwnedFd>, Rules), Failure> {
    let user = namespace::make()?;
    let v6 = network::lead_to_lo(world_v6).at(Step::Network)?;
    let tcp = listener(SocketAddr::from((CATCH_V4, 0))).at(Step::Sockets)?;
    let port = port(&tcp).at(Step::Sockets)?;
    let udp = datagrams(SocketAddr::from((CATCH_V4, port))).at(Step::Sockets)?;
    let dns = SocketAddr::from((DNS, 53));
    let dns_tcp = listener(dns).at(Step::Sockets)?;
    let dns_udp = bound(dns, Type::DGRAM).at(Step::Sockets)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for name in ["net", "mnt"] {
        descriptors.push(own(name).at(Step::Namespaces)?);
    }
    descriptors.extend([tcp, udp, dns_tcp, dns_udp].map(OwnedFd::from));
    descriptors.push(questions().at(Step::Sockets)?);
    let mut port_v6 = None;
    if v6 {
        let at = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let tcp = listener(at(port)).at(Step::Sockets)?;
        let udp = datagrams(at(port)).at(Step::Sockets)?;
        descriptors.extend([tcp, udp].map(OwnedFd::from));
        port_v6 = Some(port);
    }
    if user {
        descriptors.push(own("user").at(Step::Namespaces)?);
    }
    let rules = Rules::make(port, port_v6).at(Step::Rules)?;
    Ok((Made { v6, user }, descriptors, rules))
}

/// The namespace that this process is in.
fn own(kind: &str) -> io::Result<OwnedFd> {
    fs::File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from)
}

/// Ends what runs in the network namespace `inside`.
fn end_all(inside: &Path) {
    tell_all(inside, Signal::SIGTERM);
    let until = Instant::now() + GRACE;
    while Instant::now() < until && !others(inside).is_empty() {
        sleep(LOOK);
    }
    for _ in 0..KILLS {
        if others(inside).is_empty() {
            return;
        }
        tell_all(inside, Signal::SIGKILL);
        sleep(LOOK);
    }
}

fn tell_all(inside: &Path, signal: Signal) {
    for pid in others(inside) {
        // Fails where it has ended meanwhile.
        let _ = kill(pid, signal);
        // One that is stopped would not see it.
        let _ = kill(pid, Signal::SIGCONT);
    }
}

/// The other processes of a network namespace.
fn others(inside: &Path) -> Vec<Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| network_of(name).is_some_and(|network| network == inside))
        .filter_map(|name| name.parse().ok().map(Pid::from_raw))
        .filter(|pid| *pid != Pid::this())
        .collect()
}

/// The network namespace of a process, or of `self`.
fn network_of(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}
