//! `kdev intercept`, and the flags that `kdev run` shares with it.

mod printer;
mod terms;

use std::ffi::OsString;

use clap::Args;

use self::printer::{Out, Printer};
pub(super) use self::terms::{HEADINGS, TermFlags};
use super::complete::Offer;
use super::run::{EXIT_KDEV_FAILED, Terminal};
use super::{SettingFlags, complete, output, signalled};
use crate::addr::Target;
use crate::app;
use crate::app::intercept::{Asked, Planned, Source, app_at, owner};
use crate::config::{Config, Given, on};

const EXAMPLES: &str = "\
Examples:
  kdev intercept orders --to 8080                          send all its requests to localhost:8080
  kdev intercept orders --to 8080 --header 'x-user: ada'   only those with this header
  kdev intercept orders --to 8080 --mine                   only yours: x-kdev: YOU, or baggage kdev=YOU
  kdev intercept orders:grpc --to 9090 --path-prefix /shop.Cart   only those below a path
  kdev intercept orders --to 8080 --mirror                 send copies; callers get the pods' answers
  kdev intercept orders -- npm start                       run a command that listens on $PORT
  kdev intercept orders --to 8080 --for 2h --quiet         end after two hours, print no requests
  kdev run --intercept orders=8080 -- docker run -p 8080:8080 my/orders   run a container that gets them

All conditions must hold. Without any the intercept is global: it takes all requests, and connections
that are not HTTP. `kdev list` shows who intercepts what. Only the Service's selector is changed, and
given back at the end. An intercept needs the relay (`kdev install`) and the role `edit` in the
Service's namespace.

Once kdev has been silent for 6 s (it was killed, its laptop sleeps or has no network) the original
pods answer its requests, marked with `x-kdev-fallback: owner silent`, until it is back; with
--strict callers get a 503. A personal intercept adds `no-store` to the Cache-Control of its answers.

Exit code: 0 after Ctrl-C, your own `kdev leave` or when the time of --for is over, 130 when Ctrl-C
came before it was live or a second one cut its end short, 143 after SIGTERM, 1 when it failed or
others ended it; with COMMAND, the command's own. What --for ends gets SIGTERM, and is killed where that does not end it.";

/// Send a Service's requests to an app on this laptop until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InterceptArgs {
    /// The Service and its port, a number or a name [default: its only port, or `http`]
    #[arg(value_name = "SERVICE[:PORT]", add = complete::targets(Offer::Interceptable))]
    service: Source,
    /// Where the app listens, on this laptop unless HOST is given; with COMMAND a free port by default,
    /// which the command gets as $PORT
    #[arg(long, value_name = "[HOST:]PORT", value_parser = app_at, required_unless_present = "command")]
    to: Option<Target>,
    /// Do not print each request
    #[arg(short, long)]
    quiet: bool,
    /// Print events as JSON, one per line
    #[arg(long, conflicts_with = "command")]
    json: bool,
    /// Command to run meanwhile; it sees the cluster, and the intercept ends with it
    #[arg(last = true, value_name = "COMMAND", add = complete::command())]
    pub(super) command: Vec<OsString>,
    #[command(flatten)]
    terms: TermFlags,
    #[command(flatten)]
    settings: SettingFlags<{ on::INTERCEPT }>,
}

impl InterceptArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }

    /// The exit code when kdev itself failed.
    pub(super) fn failure(&self) -> u8 {
        match self.command.is_empty() {
            true => 1,
            false => EXIT_KDEV_FAILED,
        }
    }
}

pub(super) async fn run(args: InterceptArgs, config: &Config) -> anyhow::Result<u8> {
    let mut terms = args.terms.terms(&owner(config))?;
    terms.log = !args.quiet;
    terms.patient = !args.command.is_empty();
    let (to, port) = match args.to {
        Some(to) => (to, None),
        None => {
            let port = app::intercept::free_port()?;
            (
                app_at(&port.to_string()).map_err(anyhow::Error::msg)?,
                Some(port),
            )
        }
    };
    let out = match (args.json, args.command.is_empty()) {
        (true, _) => Out::Json,
        (false, true) => Out::Lines,
        // Standard output is the command's.
        (false, false) => Out::Beside,
    };
    let printer = Printer::new(out);
    let plan = Planned {
        asked: vec![Asked {
            service: args.service,
            app: to,
        }],
        terms,
        tell: printer.teller(),
        port,
    };
    if !args.command.is_empty() {
        let beside = app::run::Beside {
            plan: Some(&plan),
            ..app::run::Beside::default()
        };
        let terminal = Terminal { quiet: false };
        return app::run::run(config, &args.command, &beside, &terminal).await;
    }
    let starting = app::intercept::Alone::start(config, &plan);
    let mut alone = output::progress("Intercepting", starting).await?;
    let was_live = alone.is_live();
    if was_live {
        printer.live();
    }
    let end = alone.ended().await;
    let in_order = output::progress("Giving back what was intercepted", alone.close()).await;
    match end {
        app::intercept::End::Signal(number) if was_live && in_order => Ok(signalled(number)),
        app::intercept::End::Signal(number) => Ok(128 + number),
        app::intercept::End::Elapsed => Ok(0),
        app::intercept::End::Left(how) => {
            if !args.json {
                output::note(&how);
            }
            Ok(0)
        }
        app::intercept::End::Broken(reason) => anyhow::bail!("{reason}"),
    }
}

/// What `kdev run --intercept` prints.
pub(super) fn beside() -> app::intercept::Teller {
    Printer::new(Out::Beside).teller()
}
