//! `kdev list`.

use clap::Args;
use serde_json::{Value, json};

use super::output;
use crate::app::intercepts;
use crate::config::Config;
use crate::intercept::Claim;
use crate::k8s::redirect::list::Intercepted;

const EXAMPLES: &str = "\
Examples:
  kdev list            who intercepts what in the kubeconfig's namespace
  kdev list -n shop    in another one
  kdev list -A         in all namespaces that you may see
  kdev list -A --json  the same for scripts, an array

Where there are only traces of intercepts, `kdev restore` takes them away.";

/// Show who intercepts which Service
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// In all namespaces, or in those that you may see
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ListArgs, config: &Config) -> anyhow::Result<u8> {
    let listed = intercepts::list(config, args.all_namespaces);
    let found = output::progress("Looking for intercepts", listed).await?;
    if args.json {
        let all: Vec<Value> = found.iter().map(document).collect();
        output::line(&serde_json::to_string_pretty(&all)?)?;
        return Ok(0);
    }
    if found.is_empty() {
        output::line("Nothing is intercepted.")?;
    }
    for service in &found {
        output::line(describe(service).trim_end())?;
    }
    Ok(0)
}

fn document(found: &Intercepted) -> Value {
    let landings = found.landings.iter();
    let ports: Vec<Value> = landings
        .map(|(name, port)| json!({"name": name, "relay_port": port}))
        .collect();
    json!({
        "namespace": found.namespace,
        "service": found.service,
        "origin": found.origin,
        "ports": ports,
        "claims": found.claims,
        "given_back": found.given_back,
    })
}

fn describe(found: &Intercepted) -> String {
    let mut text = format!("{}.{}\n", found.service, found.namespace);
    for claim in &found.claims {
        text += &format!("  {:<12} {}{}\n", claim.id, claim.owner, rule(claim));
    }
    match (&found.unreadable, found.claims.is_empty()) {
        (Some(why), _) => text += &format!("  {why}\n"),
        (None, true) => text += "  traces of an intercept; `kdev restore` takes them away\n",
        (None, false) => {}
    }
    text
}

/// What a claim says besides whose it is.
fn rule(claim: &Claim) -> String {
    let said = claim.rule.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        value => format!("{key}={value}"),
    });
    let said: Vec<String> = said.collect();
    match said.is_empty() {
        true => String::new(),
        false => format!(": {}", said.join(" ")),
    }
}
