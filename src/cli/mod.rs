//! The command line: flags, printing, exit codes. What the commands do is `app`'s part.

mod connect;
mod demo;
mod doctor;
mod forward;
mod logging;
mod output;
mod run;
mod status;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::config::{Config, Via};
use crate::k8s::KubeOptions;

const EXAMPLES: &str = "\
Examples:
  kdev demo                                  no cluster at hand: the main jobs against a simulated one
  kdev doctor                                what this kubeconfig may do, and what is missing
  kdev run -- curl http://orders.shop/       a command that sees the cluster
  kdev run -- docker run --rm my/api         a container that sees the cluster
  kdev forward pg.shop:5432                  a plain local port that survives pod restarts
  kdev connect                               a proxy for anything else, until Ctrl-C

Service names are SERVICE (in the kubeconfig's namespace), SERVICE.NAMESPACE or any longer form.
kdev needs a kubeconfig and nothing else: no root here, nothing installed in the cluster.";

/// Puts a program on this laptop, or a container, inside a Kubernetes cluster.
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
    Forward(forward::ForwardArgs),
    Connect(connect::ConnectArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Demo(demo::DemoArgs),
}

/// Flags that every command takes; they mean what they mean to kubectl.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Kubeconfig file instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
    /// Namespace of bare Service names
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Cluster"
    )]
    namespace: Option<String>,
    /// User to impersonate
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        help_heading = "Cluster"
    )]
    as_user: Option<String>,
    /// Group to impersonate; repeatable
    #[arg(
        long = "as-group",
        global = true,
        value_name = "GROUP",
        help_heading = "Cluster"
    )]
    as_groups: Vec<String>,
    /// Say more: -v what happens, -vv every detail ($RUST_LOG selects finer)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    verbose: u8,
    /// Form of the log on standard error
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        value_enum,
        default_value_t = LogFormat::Text,
        help_heading = "Output"
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Global {
    fn kube(&self) -> KubeOptions {
        KubeOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: self.namespace.clone(),
            as_user: self.as_user.clone(),
            as_groups: self.as_groups.clone(),
        }
    }
}

/// Flags of the commands that serve a proxy.
#[derive(Clone, Debug, Args)]
struct ProxyArgs {
    /// How streams reach the cluster
    #[arg(long, value_name = "WAY", value_enum, default_value_t = ViaArg::Auto)]
    via: ViaArg,
    /// Where the proxy listens [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = listen_address)]
    proxy_listen: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ViaArg {
    /// The best way there is
    Auto,
    /// Port-forward streams to the pods, nothing installed in the cluster
    Direct,
}

impl From<ViaArg> for Via {
    fn from(via: ViaArg) -> Self {
        match via {
            ViaArg::Auto => Self::Auto,
            ViaArg::Direct => Self::Direct,
        }
    }
}

/// `1080`, `127.0.0.1:1080` or `localhost:1080`.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .map_err(|_| "write a port, or an address and a port: 127.0.0.1:1080".to_owned())
}

impl ProxyArgs {
    fn config(&self, global: &Global) -> Config {
        Config {
            kube: global.kube(),
            via: self.via.into(),
            proxy_listen: self.proxy_listen,
            host_loopback: false,
        }
    }
}

/// Parses the command line, runs the command and gives the process's exit code: 0 success, 1
/// failure, 2 a wrong command line, 130 after Ctrl-C; `run` passes its child's through.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::command()
        .try_get_matches()
        .and_then(|m| Cli::from_arg_matches(&m))
    {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = logging::start(cli.global.verbose, cli.global.log_format) {
        output::error(&error);
        return ExitCode::from(2);
    }
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
    let failure = match &cli.command {
        Command::Run(_) => run::EXIT_KDEV_FAILED,
        _ => 1,
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args, &cli.global).await,
            Command::Forward(args) => forward::run(args, &cli.global).await,
            Command::Connect(args) => connect::run(args, &cli.global).await,
            Command::Status(args) => status::run(args).await,
            Command::Doctor(args) => doctor::run(args, &cli.global).await,
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

/// The exit code of a command that a signal ended: 128 and the signal, as shells count. Ctrl-C is
/// the ordinary end of `connect` and `forward`.
fn signalled(number: u8) -> u8 {
    const SIGINT: u8 = 2;
    if number == SIGINT { 0 } else { 128 + number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn listen_addresses_as_users_write_them() {
        for text in ["1080", "127.0.0.1:1080", "localhost:1080"] {
            assert_eq!(
                listen_address(text).unwrap(),
                (Ipv4Addr::LOCALHOST, 1080).into(),
                "{text}"
            );
        }
        assert_eq!(
            listen_address("[::1]:1080").unwrap().to_string(),
            "[::1]:1080"
        );
        assert!(listen_address("somewhere:1080").is_err());
    }

    #[test]
    fn flags_stand_before_and_after_the_command() {
        for line in [
            "kdev -n shop --context lab run -- curl x",
            "kdev run -n shop --context lab -- curl x",
            "kdev run -n shop --context lab curl x",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.namespace.as_deref(), Some("shop"), "{line}");
            let Command::Run(run) = cli.command else {
                panic!("{line}")
            };
            assert_eq!(run.command, ["curl", "x"], "{line}");
        }
    }
}
