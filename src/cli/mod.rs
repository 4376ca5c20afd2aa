//! The command line: flags, printing, exit codes. What the commands do is `app`'s part.

mod clear;
mod complete;
mod connect;
mod demo;
mod doctor;
mod env;
mod flags;
mod forward;
mod groups;
mod help;
mod install;
mod intercept;
mod leave;
mod list;
mod logging;
mod man;
mod output;
mod progress;
mod resolve;
mod restore;
mod run;
mod settings;
mod status;
mod terminal;
mod uninstall;
mod wrap;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Args, FromArgMatches as _, Parser, Subcommand};

use self::flags::SettingFlags;
use crate::app::descriptors;
use crate::config::{self, Config, Given, Layered, Origin, Place, on};

const EXAMPLES: &str = "\
Examples:
  kdev run -- curl http://orders.shop/    run a command that sees the cluster
  kdev intercept orders --to 8080 --mine  get your own requests of a Service
  kdev demo                               try it all without a cluster

Run `kdev COMMAND --help` for the options and examples of a command.";

/// Run programs on your laptop as if they were inside a Kubernetes cluster
#[derive(Debug, Parser)]
#[command(name = "kdev", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Shell(run::ShellArgs),
    Intercept(intercept::InterceptArgs),
    Forward(forward::ForwardArgs),
    Connect(connect::ConnectArgs),
    Env(env::EnvArgs),
    Resolve(resolve::ResolveArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Install(install::InstallArgs),
    Upgrade(install::UpgradeArgs),
    Uninstall(uninstall::UninstallArgs),
    List(list::ListArgs),
    Leave(leave::LeaveArgs),
    Restore(restore::RestoreArgs),
    #[command(hide = true)]
    Clear(clear::ClearArgs),
    Config(settings::ConfigArgs),
    Completions(complete::CompletionsArgs),
    Man(man::ManArgs),
    Options(help::OptionsArgs),
    Demo(demo::DemoArgs),
}

/// Flags that every command takes; they mean what they mean to kubectl.
#[derive(Clone, Debug, Args)]
struct Global {
    #[command(flatten)]
    settings: SettingFlags<{ on::ALL }>,
    /// Log more: -v each connection, -vv what kdev does, -vvv everything; $RUST_LOG selects finer
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Log")]
    verbose: u8,
}

impl Cli {
    /// With `run` in the place of `shell`, which is one without a command.
    fn with_shell(self) -> Self {
        let command = match self.command {
            Command::Shell(args) => Command::Run(args.run()),
            other => other,
        };
        Self { command, ..self }
    }

    /// The settings that the command line gives.
    fn given(&self) -> Given {
        let own = match &self.command {
            Command::Run(args) => args.given(),
            // It was made a `run` when it was read.
            Command::Shell(_) => Vec::new(),
            Command::Intercept(args) => args.given(),
            Command::Connect(args) => args.given(),
            Command::Env(args) => args.given(),
            Command::Forward(args) => args.given(),
            Command::Resolve(args) => args.given(),
            Command::Install(args) => args.given(),
            Command::Upgrade(args) => args.given(),
            Command::Status(_)
            | Command::Doctor(_)
            | Command::Uninstall(_)
            | Command::List(_)
            | Command::Leave(_)
            | Command::Restore(_)
            | Command::Clear(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Options(_)
            | Command::Demo(_) => Vec::new(),
        };
        own.into_iter()
            .chain(self.global.settings.given())
            .collect()
    }
}

/// The settings that `command` takes.
fn settings_of(command: &Command, layered: Layered) -> Config {
    let in_file = |origin: &Origin| matches!(origin, Origin::Project(..) | Origin::User(..));
    let listen = layered.origin("proxy-listen").is_some_and(in_file);
    let mut config = layered.config;
    // An address in a file is that of `connect`: two runs at a time cannot both have it.
    if listen && !matches!(command, Command::Connect(_)) {
        config.proxy_listen = None;
    }
    config
}

/// Parses the command line, runs the command and gives the process's exit code: 0 success, 1
/// failure, 2 a wrong command line, 128 and the number of a signal that broke something off; `run`
/// passes its child's through.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = helper() {
        return ExitCode::from(code);
    }
    if complete::answer() {
        return ExitCode::SUCCESS;
    }
    // In a terminal `kdev run` alone is a shell; in a script something was forgotten.
    let shell = std::io::stdin().is_terminal();
    let command = help::command();
    let command = match shell {
        true => command.mut_subcommand("run", |run| {
            run.mut_arg("command", |arg| arg.required(false))
        }),
        false => command,
    };
    let cli = match command
        .try_get_matches()
        .and_then(|m| Cli::from_arg_matches(&m))
    {
        Ok(cli) => cli.with_shell(),
        // Help and the version are kdev's own words; an error has those of the command line.
        Err(error) if error.use_stderr() => {
            let words: Vec<String> = std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            output::usage(&help::refusal(&error, &words));
            return ExitCode::from(misused(&words));
        }
        Err(help) => help.exit(),
    };
    let failure = match &cli.command {
        Command::Run(_) => run::EXIT_KDEV_FAILED,
        Command::Intercept(args) => args.failure(),
        _ => 1,
    };
    if matches!(cli.command, Command::Clear(_)) {
        clear::let_go();
    }
    let place = Place::of_process();
    let config = match &cli.command {
        // These work where settings are broken: one shows what is wrong, the other needs none.
        Command::Config(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Options(_)
        | Command::Demo(_) => Ok(Config::default()),
        _ => config::load(cli.given(), &place).map(|layered| {
            let widened = match &cli.command {
                Command::Run(_) | Command::Connect(_) => layered.widened(),
                _ => None,
            };
            if let Some(widened) = widened {
                output::note(&widened);
            }
            settings_of(&cli.command, layered)
        }),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            output::error(&error);
            return ExitCode::from(failure);
        }
    };
    let quiet = matches!(&cli.command, Command::Run(args) if args.quiet());
    if let Err(error) = logging::start(cli.global.verbose, quiet, config.log_format) {
        output::error(&error);
        return ExitCode::from(failure);
    }
    descriptors::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&anyhow::Error::new(error).context("cannot start"));
            return ExitCode::FAILURE;
        }
    };
    let given = cli.given();
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args, &config).await,
            Command::Shell(args) => run::run(args.run(), &config).await,
            Command::Intercept(args) => intercept::run(args, &config).await,
            Command::Forward(args) => forward::run(args, &config).await,
            Command::Connect(args) => connect::run(args, &config).await,
            Command::Env(args) => env::run(args, !given.is_empty(), &config).await,
            Command::Resolve(args) => resolve::run(args, &config).await,
            Command::Status(args) => status::run(args).await,
            Command::Doctor(args) => doctor::run(args, cli.global.verbose > 0, &config).await,
            Command::Install(args) => install::install(args, &given, &config).await,
            Command::Upgrade(args) => install::upgrade(args, &given, &config).await,
            Command::Uninstall(args) => uninstall::run(args, &config).await,
            Command::List(args) => list::run(args, &config).await,
            Command::Leave(args) => leave::run(args, &config).await,
            Command::Restore(args) => restore::run(args, &config).await,
            Command::Clear(_) => clear::run(&config).await,
            Command::Config(args) => settings::run(args, given, &place),
            Command::Completions(args) => complete::run(&args),
            Command::Man(args) => man::run(&args),
            Command::Options(_) => help::options(),
            Command::Demo(args) => demo::run(args).await,
        }
    });
    // A name look-up that hangs in the system's resolver must not hold the exit up.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&error);
            ExitCode::from(failure)
        }
    }
}

/// Does the work of one of kdev's own helpers, where this process is one.
fn helper() -> Option<u8> {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    crate::run::container::companion::warden::helper(&args).or_else(|| capture_helper(&args))
}

#[cfg(not(target_os = "linux"))]
fn capture_helper(_: &[std::ffi::OsString]) -> Option<u8> {
    None
}

#[cfg(target_os = "linux")]
fn capture_helper(args: &[std::ffi::OsString]) -> Option<u8> {
    use crate::capture::{self, Helped};
    use crate::run::child::SpawnError;

    Some(match capture::helper(args)? {
        Helped::Ended(code) => code,
        Helped::NotStarted { program, error } => {
            let error = SpawnError::from_io(&program, error);
            output::note(&error.to_string());
            error.exit_code()
        }
        Helped::Broken(why) => {
            output::error(&anyhow::anyhow!("the command did not start: {why}"));
            run::EXIT_KDEV_FAILED
        }
    })
}

/// The exit code for the command line `words`, which is wrong: 2, unless the command passes on that of
/// another program, whose own 2 it would look like.
fn misused(words: &[String]) -> u8 {
    let runs = words.iter().any(|word| word == "--");
    match help::meant(words).as_deref() {
        Some("run" | "shell") => run::EXIT_KDEV_FAILED,
        Some("intercept") if runs => run::EXIT_KDEV_FAILED,
        _ => 2,
    }
}

/// The exit code of a command that a signal ended: 128 and the signal, as shells count. Ctrl-C is
/// the ordinary end of `connect`, `forward` and `intercept`, as of `kubectl port-forward`.
fn signalled(number: u8) -> u8 {
    const SIGINT: u8 = 2;
    if number == SIGINT { 0 } else { 128 + number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        help::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_not_taken_for_a_programs_own_failure() {
        for (line, code) in [
            ("kdev run --namespce x -- true", 125),
            ("kdev -n run run --via pigeon true", 125),
            ("kdev run", 125),
            ("kdev intercept orders --header -- npm start", 125),
            ("kdev intercept orders", 2),
            ("kdev -n run list --nosuch", 2),
            ("kdev nosuch", 2),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert!(
                help::command().try_get_matches_from(&words).is_err(),
                "{line}"
            );
            assert_eq!(misused(&words), code, "{line}");
        }
    }

    #[test]
    fn flags_stand_before_and_after_the_command() {
        for line in [
            "kdev -n shop --context lab run -- curl x",
            "kdev run -n shop --context lab -- curl x",
            "kdev run -n shop --context lab curl x",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let given = cli.given();
            let given = |key| {
                given
                    .iter()
                    .find(|(s, _)| s.key == key)
                    .map(|(_, v)| v.text())
            };
            assert_eq!(given("namespace"), Some("shop"), "{line}");
            assert_eq!(given("context"), Some("lab"), "{line}");
            let Command::Run(run) = cli.command else {
                panic!("{line}")
            };
            assert_eq!(run.command, ["curl", "x"], "{line}");
        }
    }
}
