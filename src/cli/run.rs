//! `kdev run`.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;

use super::intercept::{self, TermFlags};
use super::{SettingFlags, complete, output};
use crate::app;
use crate::app::intercept::{Asked, Planned, Terms, owner};
use crate::config::{Config, Given, on};
use crate::run::publish::Publish;

/// The exit code when kdev itself failed, as `docker run` has it: a child's own code is passed
/// through, 126 and 127 say that it was not started.
pub(super) const EXIT_KDEV_FAILED: u8 = 125;

const EXAMPLES: &str = "\
Examples:
  kdev run -- curl http://orders.shop/             run a command that sees the cluster
  kdev run -- docker run --rm my/api               run a container that sees the cluster
  kdev run -n shop -- psql -h pg -U shop           let bare names mean Services of namespace shop
  kdev run --publish 0.0.0.0:8080:3000 -- npm start   show others what it serves on port 3000
  kdev run -- docker run -d my/api                 stay in this terminal until the container ends
  kdev run -- docker compose up                    let all services of a project see the cluster
  kdev run --only api -- docker compose up api db  let one of them see it
  kdev run --host-loopback -- docker run my/api    let the container reach 127.0.0.1 of this laptop
  kdev run --intercept orders=8080 -- docker run -p 8080:8080 my/orders   take a Service's requests too

On Linux the command gets a network of its own, without root: names, Services and pods of the cluster
answer any program, by TCP and UDP, and everything else is dialled from this laptop as always. TCP
ports that the command listens on are reachable from this laptop at the same address; localhost is
this laptop's, where the command does not listen there itself, and host.kdev.internal in any case.

What differs in such a network: a connection stands before it is dialled, so what is refused or
cannot be reached shows as a reset at the first use; only `lo` is there, and no ping, multicast or
abstract Unix socket; `sudo` and other programs that become another user do not work, root's files
show as nobody's, and ssh refuses a configuration that includes such files.

Where the system allows no such network (`kdev doctor` says why), kdev looks at each connect of the
command and connects those to the cluster itself; datagrams go past it then, but for questions about
names, and a refused connection shows at once. Where that is not allowed either, with --capture off,
and on other systems, the command gets HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and what Java, Node, gRPC, npm and pip
need; KDEV_SOCKS_PROXY is the same port for SOCKS. Programs that ignore proxy variables (psql,
redis-cli) then need a port of `kdev forward`; kdev says so when nothing came through it.

A container shares the network of a companion, a second container of the same image with NET_ADMIN in
that network alone; flags about the network (-p, --network, --dns, --hostname and so on) go to it.
Names, Services and pods answer any program there; names of the user's network win over the
cluster's, and what is not the cluster's goes out as without kdev. With --network host and the like,
with proxies in Docker's client configuration, and where the engine allows no companion, the container
gets the variables in place of it.

`docker compose up` gives each service such a companion, kdev-SERVICE, which has its networks, ports
and names; nothing is written into the project, and `docker compose logs`, exec, ps, restart and down
work as ever, with and without kdev. Each `up` under kdev creates the containers anew, so keep what
shall last in volumes. Services with the label dev.kdev.capture=false stay outside; if any service has
dev.kdev.capture=true, only those see the cluster. A service of several containers or without a network
of its own stays outside, and kdev says so. `kdev run -- docker compose config` prints the project as it
will be. Only the container that `docker compose run` starts sees the cluster, not its dependencies.
kdev needs Compose 2; it refuses create, watch, `run -d` and `up --no-recreate`.

Plain HTTP/1 requests to Services that you intercept with --mine get baggage kdev=YOU on their way;
--mine-header off leaves them as they are.

Where a `kdev connect` with the same settings runs, a command uses its session and starts at once;
--own-session prevents that. -v then shows all connections of that session, those of other commands
too. Containers always get a session of their own.

Before a container with variables starts, a short one on its network, of an image that is already
here, tries the way to kdev. Where a firewall blocks it, kdev says what opens it and starts nothing.

SIGTERM is passed on to the command. What does not end by it is killed: a container 10 s later,
another command 30 s later. What a command leaves running in the background loses its network when
kdev ends; where kdev is killed by SIGKILL, so is what runs in that network, a container too. One that
was started with -d goes on when kdev ends, in its network and without the cluster.

Exit code: the command's own; 127 not found, 126 not executable, 125 when kdev itself failed or was
used wrongly.";

const SHELL_EXAMPLES: &str = "\
Examples:
  kdev shell                    start the shell of $SHELL
  kdev shell -n shop            let bare names mean Services of namespace shop

What you start in it sees the cluster as under `kdev run`, whose help has the details. The prompt of
bash and fish begins with (kdev NAMESPACE); others find that in $KDEV_PROMPT.";

/// Run a command or a container that sees the cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// The command and its arguments; your shell if there is none, in a terminal
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "COMMAND",
        add = complete::command()
    )]
    pub(super) command: Vec<OsString>,
    #[command(flatten)]
    options: RunOptions,
}

/// Start your shell inside the cluster, until `exit`
#[derive(Debug, Args)]
#[command(after_help = SHELL_EXAMPLES)]
pub(super) struct ShellArgs {
    #[command(flatten)]
    options: RunOptions,
}

/// What is asked for beside the command.
#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// Send a Service's requests to this port meanwhile; repeatable (see `kdev intercept`)
    #[arg(long, value_name = "SERVICE[:PORT]=[HOST:]PORT")]
    intercept: Vec<Asked>,
    /// Reach a port of the command at this address too; repeatable
    #[arg(long, value_name = "[[IP:]PORT:]COMMAND-PORT")]
    publish: Vec<Publish>,
    /// Let only this service of a Compose project see the cluster; repeatable
    #[arg(long, value_name = "SERVICE")]
    only: Vec<String>,
    /// Print only errors, and what a project's settings send into the cluster
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    terms: TermFlags,
    #[command(flatten)]
    settings: SettingFlags<{ on::RUN }>,
}

impl RunArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.options.settings.given()
    }

    /// Whether only errors are printed.
    pub(super) fn quiet(&self) -> bool {
        self.options.quiet
    }
}

impl ShellArgs {
    /// The same command line for `run`.
    pub(super) fn run(self) -> RunArgs {
        RunArgs {
            options: self.options,
            command: Vec::new(),
        }
    }
}

pub(super) async fn run(args: RunArgs, config: &Config) -> anyhow::Result<u8> {
    let RunArgs { options, command } = args;
    let plan = match options.intercept.is_empty() {
        true if options.terms.is_any() => {
            anyhow::bail!(
                "options about an intercept, such as --header or --for, need one; write --intercept \
                 SERVICE=PORT too"
            )
        }
        true => None,
        false => Some(Planned {
            asked: options.intercept,
            terms: Terms {
                patient: true,
                ..options.terms.terms(&owner(config))?
            },
            tell: intercept::beside(),
            port: None,
        }),
    };
    let terminal = Terminal {
        quiet: options.quiet,
    };
    let beside = app::run::Beside {
        plan: plan.as_ref(),
        publish: &options.publish,
        only: &options.only,
    };
    app::run::run(config, &command, &beside, &terminal).await
}

/// The terminal, or what stands in its place.
pub(super) struct Terminal {
    /// Whether remarks are left out.
    pub(super) quiet: bool,
}

impl app::run::Observer for Terminal {
    fn note(&self, text: &str) {
        output::note(text);
    }

    fn remark(&self, text: &str) {
        if !self.quiet {
            output::note(text);
        }
    }

    fn teller(&self) -> app::Note {
        let this = Self { quiet: self.quiet };
        Arc::new(move |text| this.remark(text))
    }

    async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        output::progress(what, work).await
    }
}
