//! `kdev doctor`: what this machine, this kubeconfig and this cluster allow kdev to do, and what
//! to do about the rest.
//!
//! Checks are data ([`Check`]), and what the user can do ([`Answer`]) follows from them. Sections run at the same time where they do not disturb each
//! other; what depends on something that failed is skipped and names it.
//!
//! * `kubeconfig`: which cluster, user and namespace, from which files
//! * `server`: names, TCP, TLS, HTTP and login
//! * `permissions`: each right by verb and resource; `rights`: those for intercepts and installs
//! * `forms`: which wire forms of port-forward work, on a pod
//! * `relay`: whether there is one in the namespace, which tunnels to it work, and what it reaches
//!   (`reach`)
//! * `rehearsal`: whether the cluster would take one
//! * `speed`: round trip and throughput
//! * `containers`: the engine, and a container that asks a listener of ours
//! * `local`: proxies of the environment, other sessions, the runtime folder

mod answers;
mod board;
mod check;
mod containers;
mod forms;
mod kubeconfig;
mod local;
mod permissions;
mod proxies;
mod reach;
mod rehearsal;
mod relay;
mod rights;
mod role;
mod server;
mod speed;

use std::time::Duration;

use tokio::time::Instant;

pub use check::{Answer, Check, Report, Status};

use self::answers::Facts;
use self::board::{Board, Section};
use self::server::Reached;
use crate::config::Config;
use crate::k8s::kubeconfig::{Environment, Loaded};
use crate::task::Tasks;

/// How long all questions to the cluster may take together. A credential plugin that has to ask
/// the user is not counted: it has limits of its own.
pub const CLUSTER_LIMIT: Duration = Duration::from_secs(15);

/// How long one question waits where the API server asks for patience: less than any check takes, so
/// that the check says what is wrong.
const BUSY_LIMIT: Duration = Duration::from_secs(4);

/// Characters that are shown of a refusal in nobody's known words: a line of an API server about
/// another server, addresses and all.
const MAX_REASON: usize = 300;

/// How long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);

/// Looks at everything.
pub async fn run(config: &Config) -> Report {
    let tasks = Tasks::new();
    let board = Board::default();
    let environment = config.environment();
    let (loaded, check) = kubeconfig::check(&config.kube, &environment).await;
    board.put(Section::Kubeconfig, vec![check]);
    let (facts, (), ()) = tokio::join!(
        cluster(config, &environment, loaded.as_ref(), &board, &tasks),
        async { board.put(Section::Containers, containers::checks().await) },
        async {
            let (proxies, domain) = (&environment.proxies, &config.cluster_domain);
            let checks = local::checks(loaded.as_ref(), proxies, domain).await;
            board.put(Section::Local, checks);
        },
    );
    tasks.shutdown(GOODBYE).await;
    let checks = board.finish();
    Report {
        ok: !checks.iter().any(Check::is_fatal),
        answers: answers::of(&checks, facts.as_ref()),
        checks,
        role: facts.and_then(|facts| facts.role),
    }
}

/// The sections that talk to the cluster. Gives what is known of it, where it was reached.
async fn cluster(
    config: &Config,
    environment: &Environment,
    loaded: Option<&Loaded>,
    board: &Board,
    tasks: &Tasks,
) -> Option<Facts> {
    let reached = match loaded {
        Some(loaded) => server::reach(&config.kube, environment, loaded, board, tasks).await,
        None => {
            board.put(
                Section::ApiServer,
                vec![server::skipped_server("the kubeconfig cannot be used")],
            );
            Err("the kubeconfig cannot be used")
        }
    };
    let reached = match reached {
        Ok(reached) => reached,
        Err(why) => {
            if loaded.is_none() {
                board.put(Section::Login, vec![server::skipped_login(why)]);
            }
            board.put(Section::Permissions, vec![permissions::skipped(why)]);
            board.put(Section::Rights, rights::skipped(why));
            board.put(Section::PortForward, vec![forms::skipped(why)]);
            board.put(Section::Relay, vec![relay::skipped(why)]);
            board.put(Section::Install, vec![rehearsal::skipped(why)]);
            board.put(Section::Speed, vec![speed::skipped(why)]);
            return None;
        }
    };
    let Reached {
        client,
        identity,
        minor,
        until,
    } = reached;
    // Alone, since what else is sent would lengthen it.
    let round_trip = speed::round_trip(&client, until).await;
    let permissions = permissions::ask(&client, until);
    let forms = forms::checks(&client, until, tasks);
    let relay = relay::checks(&client, until);
    let install = async {
        let rights = rights::ask(&client, until).await;
        let rehearsal = rehearsal::check(&client, config, &rights.install, until).await;
        (rights, rehearsal)
    };
    let (asked, forms, relay, (rights, rehearsal)) =
        tokio::join!(permissions, forms, relay, install);
    // What was tried says more about a right than its name does.
    let found = asked.judge(&client, identity.as_ref(), minor, forms.works);
    board.put(Section::Permissions, found.checks);
    board.put(Section::Rights, rights.checks(client.namespace()));
    board.put(Section::PortForward, forms.checks);
    board.put(Section::Relay, relay.checks);
    board.put(Section::Install, vec![rehearsal]);
    board.put(
        Section::Speed,
        vec![speed::check(&client, round_trip, until).await],
    );
    Some(Facts {
        namespace: client.namespace().to_owned(),
        missing: found.missing,
        rights,
        relay: relay.state,
        role: found.role,
    })
}

/// Waits for `work` until its own `limit` or the end of it all, whichever comes first.
async fn within<T>(
    limit: Duration,
    until: Instant,
    work: impl Future<Output = T>,
) -> Result<T, tokio::time::error::Elapsed> {
    let end = until.min(Instant::now() + limit);
    tokio::time::timeout_at(end, work).await
}

/// A time as people read it.
fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// The beginning of `text`, whole words, marked where something is left out.
fn shorten(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(MAX_REASON) else {
        return text.to_owned();
    };
    let cut = &text[..end];
    let words = cut.rsplit_once(char::is_whitespace);
    let words = words.map_or(cut, |(words, _)| words.trim_end());
    format!("{words} …")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_ends_with_a_word_and_says_so() {
        assert_eq!(
            shorten("connect: connection refused"),
            "connect: connection refused"
        );
        let words = "word ".repeat(100);
        let shown = shorten(&words);
        assert!(
            shown.ends_with("word …") && shown.chars().count() <= MAX_REASON + 2,
            "{shown}"
        );
        let one = "é".repeat(2 * MAX_REASON);
        assert_eq!(shorten(&one), format!("{} …", "é".repeat(MAX_REASON)));
    }
}
