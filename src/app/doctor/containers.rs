//! The container engine, and whether a container reaches a listener of ours. Only `kdev run` with
//! containers needs it, so nothing here fails the whole.

use std::time::Duration;

use super::check::Check;
use super::millis;
use crate::run::container::trial::{Trial, installed};
use crate::run::container::{ContainerError, Finding, Peers};

/// How long the engine may take to tell about itself. A daemon that its socket starts takes
/// seconds.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);
/// How long the containers may take that ask; one takes well below a second.
const ASK_LIMIT: Duration = Duration::from_secs(7);
/// Networks of the user's that are tried, each with a container; projects of Compose leave many.
const NETWORKS: usize = 4;

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
        let prepared = tokio::time::timeout(ENGINE_LIMIT, Trial::prepare(program, None)).await;
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
        Some(trial) => {
            let (reached, from_networks) =
                tokio::join!(reach(&trial, REACH.0, REACH.1), reach_from_networks(&trial));
            let mut checks = vec![describe(&trial, &errors), reached];
            checks.extend(from_networks);
            checks
        }
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

/// Whether containers on the networks of the user's reach kdev.
async fn reach_from_networks(trial: &Trial) -> Vec<Check> {
    // In a virtual machine all of them lead out the same way.
    if trial.plan.peers == Peers::Password {
        return Vec::new();
    }
    let listed = tokio::time::timeout(ENGINE_LIMIT, trial.networks()).await;
    let Ok(Ok(mut networks)) = listed else {
        return Vec::new();
    };
    let others = networks.split_off(networks.len().min(NETWORKS));
    let engine = trial.engine();
    let each = networks.iter().map(|network| {
        let engine = &engine;
        async move {
            let id = format!("{}.{network}", REACH.0);
            let title = format!("containers on {network} reach kdev");
            let preparing = Trial::prepare(engine, Some(network));
            match tokio::time::timeout(ENGINE_LIMIT, preparing).await {
                Ok(Ok(trial)) => reach(&trial, &id, &title).await,
                Ok(Err(error)) => Check::skipped(&id, &title, error.to_string()),
                Err(_) => Check::skipped(&id, &title, "the engine takes too long"),
            }
        }
    });
    let mut checks = futures_util::future::join_all(each).await;
    if !others.is_empty() {
        let why = format!(
            "{}: `kdev run` tries the one that it uses",
            others.join(", ")
        );
        let title = "containers on other networks reach kdev";
        checks.push(Check::skipped("container.reach-others", title, why));
    }
    checks
}

async fn reach(trial: &Trial, id: &str, title: &str) -> Check {
    let engine = trial.engine();
    let plan = &trial.plan;
    let skipped =
        |why: String| Check::skipped(id, title, why).fix(by_hand(&engine, "curlimages/curl"));
    let listener = match plan.listen.bind(0) {
        Ok(listener) => listener,
        Err(error) => {
            return Check::warn(id, title, error.to_string())
                .fix("use an engine on this machine, or its default network");
        }
    };
    let session = format!("doctor-{:08x}", rand::random::<u32>());
    match plan.probe(&listener, &session, ASK_LIMIT).await {
        Finding::Reached { image, peer, after } => {
            let (host, after) = (&plan.advertised_host, millis(after));
            let detail = format!(
                "a container of {image} reached {host} after {after}, seen as {}",
                peer.ip()
            );
            Check::ok(id, title, detail)
        }
        Finding::Unreached(unreached) => Check::warn(id, title, unreached.what).fix(unreached.help),
        Finding::Untold(why) => skipped(why),
    }
}
