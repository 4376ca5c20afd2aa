//! `kdev forward`.

use clap::Args;
use serde_json::json;

use super::complete::Offer;
use super::{SettingFlags, complete, output, signalled};
use crate::app::forward::{Forwarding, Spec};
use crate::config::{Config, Given, on};

const EXAMPLES: &str = "\
Examples:
  kdev forward pg.shop:5432                   Service pg in namespace shop
  kdev forward pg.shop:5432=15432 redis:6379  two, the first on port 15432
  kdev forward web:http=0                     a named port, on any free port
  kdev forward redis                          its only port
  kdev forward deploy/web 8080:80             as kubectl: svc, pod, deploy, …
  kdev forward http://web.shop/               what a URL leads to
  kdev forward dns:53/udp=5353                UDP, through the relay

Each connection goes to a pod that is ready, so the ports survive pod restarts and rollouts.

Exit code: 0 after Ctrl-C, 143 after SIGTERM, 1 when it failed.";

/// The exit code of a command line that makes no sense.
const USAGE_ERROR: u8 = 2;

/// Forward local ports to Services and pods
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ForwardArgs {
    #[command(flatten)]
    settings: SettingFlags<{ on::FORWARD }>,
    /// What to forward: PORT is a number or a name, LOCAL a port or ADDRESS:PORT. As for kubectl, the
    /// port may follow as `[LOCAL:]PORT`
    #[arg(required = true, value_name = "SERVICE[:PORT][=LOCAL]", add = complete::targets(Offer::All))]
    ports: Vec<String>,
    /// kubectl's own, which is said with each local port here
    #[arg(long, hide = true)]
    address: Option<String>,
    /// Print one line of JSON with the ports once ready
    #[arg(long)]
    json: bool,
}

impl ForwardArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

pub(super) async fn run(args: ForwardArgs, config: &Config) -> anyhow::Result<u8> {
    if let Some(address) = args.address {
        output::error(&anyhow::anyhow!(
            "the address to listen on stands with the local port here; write \
             `kdev forward SERVICE:PORT={address}:PORT`"
        ));
        return Ok(USAGE_ERROR);
    }
    let specs = match Spec::read(&args.ports) {
        Ok(specs) => specs,
        Err(error) => {
            output::error(&anyhow::Error::msg(error));
            return Ok(USAGE_ERROR);
        }
    };
    let opening = Forwarding::open(config, &specs);
    let forwarding = output::progress("Connecting to the cluster", opening).await?;
    forwarding
        .notes()
        .iter()
        .for_each(|note| output::note(note));
    let ports = forwarding.ports();
    if args.json {
        let ports: Vec<_> = ports
            .iter()
            .map(|port| {
                json!({
                    "local": port.local.to_string(),
                    "target": port.target.to_string(),
                    "protocol": port.protocol.name(),
                })
            })
            .collect();
        output::json(&json!({"ports": ports, "pid": std::process::id()}), false)?;
    } else {
        for port in ports {
            output::line(&format!("{} -> {}", port.local, port.leads_to()))?;
        }
        output::line("Ctrl-C ends it.")?;
    }
    Ok(signalled(forwarding.until_signal().await?))
}
