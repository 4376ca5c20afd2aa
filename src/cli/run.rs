//! `kdev run`.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;

use super::intercept::{self, TermFlags};
use super::{SettingFlags, complete, output};
use crate::app;
use crate::app::intercept::{Asked, Planned, Terms, owner};
use crate::config::{Config, Given, on};

/// The exit code when kdev itself failed, as `docker run` has it: a child's own code is passed
/// through, 126 and 127 say that it was not started.
pub(super) const EXIT_KDEV_FAILED: u8 = 125;

const EXAMPLES: &str = "\
Examples:
  kdev run -- curl http://orders.shop/             run a command that sees the cluster
  kdev run -- docker run --rm my/api               run a container that sees the cluster
  kdev run -n shop -- npm start                    let bare names mean Services of namespace shop
  kdev run -- docker run -d my/api                 stay in this terminal until the container ends
  kdev run --host-loopback -- docker run my/api    let the container reach 127.0.0.1 of this laptop
  kdev run --intercept orders=8080 -- docker run -p 8080:8080 my/orders   take a Service's requests too

The command gets HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and what Java, Node, gRPC, npm and pip need;
KDEV_SOCKS_PROXY is the same port for SOCKS. Names that do not belong to the cluster are dialled from
this laptop as always. Programs that ignore proxy variables (psql, redis-cli) need a port of `kdev
forward`; kdev says so when nothing came through it.

Plain HTTP/1 requests to Services that you intercept with --mine get baggage kdev=YOU on their way;
--mine-header off leaves them as they are.

Where a `kdev connect` with the same settings runs, a command uses its session and starts at once;
--own-session prevents that. -v then shows all connections of that session, those of other commands
too. Containers always get a session of their own.

Before a container starts, a short one on its network, of an image that is already here, tries the
way to kdev. Where a firewall blocks it, kdev says what opens it and starts nothing.

SIGTERM is passed on to the command. What does not end by it is killed: a container 10 s later,
another command 30 s later.

Exit code: the command's own; 127 not found, 126 not executable, 125 when kdev itself failed or was
used wrongly.";

/// Run a command or a container that sees the cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// Send a Service's requests to this port meanwhile; repeatable (see `kdev intercept`)
    #[arg(long, value_name = "SERVICE[:PORT]=[HOST:]PORT")]
    intercept: Vec<Asked>,
    /// Print only errors, and what a project's settings send into the cluster
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "COMMAND",
        add = complete::command()
    )]
    pub(super) command: Vec<OsString>,
    #[command(flatten)]
    terms: TermFlags,
    #[command(flatten)]
    settings: SettingFlags<{ on::RUN }>,
}

impl RunArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

pub(super) async fn run(args: RunArgs, config: &Config) -> anyhow::Result<u8> {
    let plan = match args.intercept.is_empty() {
        true if args.terms.is_any() => {
            anyhow::bail!(
                "options about an intercept, such as --header or --for, need one; write --intercept \
                 SERVICE=PORT too"
            )
        }
        true => None,
        false => Some(Planned {
            asked: args.intercept,
            terms: Terms {
                patient: true,
                ..args.terms.terms(&owner(config))?
            },
            tell: intercept::beside(),
            port: None,
        }),
    };
    app::run::run(
        config,
        &args.command,
        plan.as_ref(),
        &Terminal { quiet: args.quiet },
    )
    .await
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
