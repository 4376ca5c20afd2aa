//! `kdev list`.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::output;
use super::terminal::word;
use crate::app::intercept::Seen;
use crate::app::intercepts::{self, Found};
use crate::config::Config;
use crate::intercept::Claim;
use crate::intercept::record::{Life, recorded};

const EXAMPLES: &str = "\
Examples:
  kdev list                      the kubeconfig's namespace
  kdev list -n shop              another one
  kdev list -A                   all namespaces that you may see
  kdev list --owner ada@laptop   only hers
  kdev list -A --json            an array, for scripts

A Service that nobody claims and that leads to the relay all the same is shown too: `kdev restore`
gives it back. What late callers of ended intercepts needed is cleared away on the way.";

/// List intercepted Services and who intercepts them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// Look in all namespaces, or in those that you may see
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those of this owner
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ListArgs, config: &Config) -> anyhow::Result<u8> {
    let listed = intercepts::list(config, args.all_namespaces, args.owner.as_deref());
    let found = output::progress("Looking for intercepts", listed).await?;
    if args.json {
        let all: Vec<Value> = found.iter().map(document).collect();
        output::json(&all, true)?;
        return Ok(0);
    }
    if found.is_empty() {
        output::line(&match &args.owner {
            // Whoever misspells a name is not told that nobody intercepts anything.
            Some(owner) => format!("{} intercepts nothing here.", word(owner)),
            None => "Nothing is intercepted.".to_owned(),
        })?;
    }
    for service in &found {
        output::line(describe(service).trim_end())?;
    }
    Ok(0)
}

fn document(found: &Found) -> Value {
    let record = &found.on_record;
    let landings = record.landings.iter();
    let ports: Vec<Value> = landings
        .map(|(name, port)| json!({"name": name, "relay_port": port}))
        .collect();
    let claims: Vec<Value> = record
        .claims
        .iter()
        .map(|claim| entry(found, claim))
        .collect();
    json!({
        "namespace": record.namespace,
        "service": record.service,
        "origin": record.origin,
        "ports": ports,
        "claims": claims,
        "given_back": record.given_back,
        "unreadable": record.unreadable,
    })
}

fn entry(found: &Found, claim: &Claim) -> Value {
    let seen = found.seen.as_ref().and_then(|seen| seen.get(&claim.id));
    let known = recorded(claim).ok();
    let conditions = known.as_ref().map(|(_, known)| {
        let all = known.conditions.iter();
        all.map(ToString::to_string).collect::<Vec<_>>()
    });
    json!({
        "id": claim.id,
        "owner": claim.owner,
        "port": known.as_ref().map(|(port, _)| port),
        "conditions": conditions,
        "mirror": known.as_ref().map(|(_, known)| known.mirror),
        "strict": known.as_ref().map(|(_, known)| known.strict),
        "since_ms": known.as_ref().map(|(_, known)| known.since),
        "state": found.life(claim).map(Life::name),
        "requests": seen.map(|seen| seen.requests),
        "last_request_ms_ago": seen.and_then(|seen| seen.last).map(|last| {
            u64::try_from(last.as_millis()).unwrap_or(u64::MAX)
        }),
    })
}

fn describe(found: &Found) -> String {
    let record = &found.on_record;
    let mut text = format!("{}.{}\n", word(&record.service), word(&record.namespace));
    for claim in &record.claims {
        text += &line(found, claim);
    }
    match (&record.unreadable, record.claims.is_empty()) {
        (Some(why), _) => text += &format!("  {}\n", word(why)),
        (None, true) => text += "  traces of an intercept; `kdev restore` gives it back\n",
        (None, false) => {}
    }
    text
}

/// A claim: its id, whose, which requests, since when, the last one, and how its kdev is doing.
fn line(found: &Found, claim: &Claim) -> String {
    let known = recorded(claim);
    let what = match &known {
        Ok((port, known)) => {
            let mirror = if known.mirror { "copies of " } else { "" };
            let since = UNIX_EPOCH + Duration::from_millis(known.since);
            let age = since.elapsed().unwrap_or_default();
            format!(
                "port {port}: {mirror}{}, for {}",
                known.conditions,
                ago(age)
            )
        }
        Err(why) => format!("of another version of kdev ({why})"),
    };
    let seen = found.seen.as_ref().and_then(|seen| seen.get(&claim.id));
    let last = match seen {
        Some(Seen {
            last: Some(last), ..
        }) => format!(", last request {} ago", ago(*last)),
        None
        | Some(Seen {
            life: Life::Dead, ..
        }) => String::new(),
        Some(_) => ", no request yet".to_owned(),
    };
    let life = match found.life(claim) {
        Some(life @ (Life::Live | Life::Beginning)) => life.name().to_owned(),
        Some(life @ Life::Silent) => {
            let strict = known.as_ref().is_ok_and(|(_, known)| known.strict);
            let mirror = known.as_ref().is_ok_and(|(_, known)| known.mirror);
            let then = match (mirror, strict) {
                (true, _) => "",
                (_, true) => " its callers get a 503,",
                (_, false) => " its requests go to the original pods,",
            };
            format!("{},{then} `kdev leave {}` ends it", life.name(), claim.id)
        }
        Some(life @ (Life::Dead | Life::Gone)) => {
            format!("{}, `kdev restore` ends it", life.name())
        }
        None => "the relay cannot be asked".to_owned(),
    };
    // A colleague's kdev wrote it, or whoever may change Services.
    let (id, owner) = (word(&claim.id), word(&claim.owner));
    format!(
        "  {id}  {owner}  {}  ({})\n",
        word(&(what + &last)),
        word(&life)
    )
}

/// A time as people say it.
fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
