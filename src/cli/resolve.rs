//! `kdev resolve`.

use clap::Args;

use super::complete::Offer;
use super::terminal::{self, Text, word};
use super::{SettingFlags, complete, output};
use crate::app::resolve::{Answer, Direction, Question, resolve};
use crate::config::{Config, Given, on};

const EXAMPLES: &str = "\
Examples:
  kdev resolve web.shop                        its first port: to which pods, and why
  kdev resolve pg-0.pg.shop.svc:5432 --json    the same for scripts
  kdev resolve 10.96.0.10:53                   whose address that is
  kdev resolve dns.shop:53/udp                 where datagrams for it go
  kdev resolve --also-proxy .corp.example db.corp.example:5432   what a rule would change

A name is read as a pod in the context's namespace would read it. Rules for names match the name as
an app writes it; rules for addresses match addresses, not the names that lead to them.

Exit code: 0 when there is somebody to dial, 1 when not.";

/// Show where a name or an address leads, and why
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    settings: SettingFlags<{ on::RESOLVE }>,
    /// What an app would dial; PORT is a number or a Service port's name; a URL will do
    #[arg(value_name = "NAME[:PORT][/udp]", add = complete::targets(Offer::All))]
    name: Question,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ResolveArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

pub(super) async fn run(args: ResolveArgs, config: &Config) -> anyhow::Result<u8> {
    let answer = output::progress("Asking the cluster", resolve(config, &args.name)).await?;
    if args.json {
        output::json(&answer, true)?;
    } else {
        output::show(text(&answer, terminal::shows_output()))?;
    }
    Ok(u8::from(!answer.reachable))
}

fn text(answer: &Answer, terminal: bool) -> Text {
    let mut lines = Vec::new();
    let (code, way) = match answer.decision {
        Direction::Cluster => ("32", "cluster"),
        Direction::Laptop if answer.reachable => ("36", "laptop"),
        Direction::Laptop | Direction::Failed => ("31", "not reachable"),
    };
    let text = Text::default().say(&format!("{} -> ", word(&answer.asked)));
    let text = text.paint(terminal, code, way);
    if answer.target != answer.asked {
        lines.push(format!("  target   {}", answer.target));
    }
    match (answer.via, &*answer.inside) {
        (Some(via), []) => lines.push(format!("  via      {}", via.name())),
        (Some(via), inside) => {
            let inside = inside.join(" or ");
            lines.push(format!("  via      {}, which dials {inside}", via.name()));
        }
        (None, _) => {}
    }
    if let Some(service) = &answer.service {
        let mut about = vec![service.kind.to_owned()];
        about.extend(service.cluster_ips.iter().cloned());
        lines.push(format!(
            "  service  {} in namespace {} ({})",
            service.name,
            service.namespace,
            about.join(", ")
        ));
        for port in &service.ports {
            lines.push(format!("  port     {port}"));
        }
    }
    for pod in &answer.pods {
        let ips = pod.ips.join(", ");
        let port = match pod.port {
            Some(port) => format!("port {port}, "),
            None => String::new(),
        };
        let ready = if pod.ready { "ready" } else { "not ready" };
        lines.push(format!("  pod      {} {ips} ({port}{ready})", pod.name));
    }
    for address in &answer.addresses {
        lines.push(format!("  address  {address}"));
    }
    if let Some(proxy) = &answer.proxy {
        lines.push(format!("  proxy    {proxy}"));
    }
    if let Some(error) = &answer.error {
        lines.push(format!("  error    {error}"));
    }
    for why in &answer.why {
        lines.push(format!("  why      {why}"));
    }
    // Some of it are the API server's words.
    lines
        .iter()
        .fold(text, |text, line| text.say(&format!("\n{}", word(line))))
}
