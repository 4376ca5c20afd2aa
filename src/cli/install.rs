//! `kdev install` and `kdev upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use serde_json::{Value, json};

use super::env::posix_word;
use super::groups::is_place;
use super::terminal::word;
use super::{SettingFlags, output};
use crate::app::install::{Event, Installed, Outcome, Plan, Request};
use crate::config::{Config, Given, on};
use crate::k8s::install::change::{Action, Done};
use crate::k8s::install::netpolicy::Choice;
use crate::k8s::install::rollout::Progress;
use crate::k8s::install::settings::Source;
use crate::relay::Rule;

const INSTALL: &str = "\
Examples:
  kdev install -n dev                                    two relay pods, no registry needed
  kdev install -n dev --base-image mirror.example.com/busybox:1.36
  kdev install -n dev --image registry.example.com/kdev-relay:0.1.0
  kdev install -n dev --deny 10.9.0.0/16 --allow 10.0.0.0/8:5432
  kdev install -n dev --network-policy on                let callers in despite other policies
  kdev install -n dev --label team=shop --cpu-limit 200m
  kdev install -n dev --dry-run --show-keys > relay.yaml

The built-in role `edit` in the namespace is enough. What is not given stays as it was installed;
an empty value removes it (--label '' --priority-class ''). All of it goes through a dry run of
the API server first. Where a later step fails, what was made is taken back.";

/// What stands above the YAML of a dry run.
const HEAD: &str = "\
# Print it with --show-keys to apply it: kubectl apply --server-side --field-manager=kdev -f FILE
# (without --server-side kubectl would copy the program into an annotation, which may not be so large)
";

/// What stands for a key.
const MASKED: &str = "(masked; --show-keys prints it)";

const UPGRADE: &str = "\
Examples:
  kdev upgrade -n dev                         to this kdev's version
  kdev upgrade -n dev --image registry.example.com/kdev-relay:0.2.0
  kdev upgrade -n dev --memory-limit 256Mi    and with more memory
  kdev upgrade -n dev --dry-run -o json       print it, with masked keys

One pod after the other is replaced, so sessions go on. Labels, limits and what else was chosen
at the install stay unless a flag or a setting says otherwise.";

/// Install the relay in a namespace, or change its settings
#[derive(Debug, Args)]
#[command(after_help = INSTALL)]
pub(super) struct InstallArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Number of relay pods [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=20))]
    replicas: Option<u16>,
    /// Networks that alone the relay may reach, each with ports where wanted, separated by commas
    #[arg(long, value_name = "CIDR[:PORTS]", value_delimiter = ',', value_parser = rule)]
    allow: Option<Vec<String>>,
    /// Networks that the relay may not reach, written as in --allow
    #[arg(long, value_name = "CIDR[:PORTS]", value_delimiter = ',', value_parser = rule)]
    deny: Option<Vec<String>>,
    /// Take tunnels by pods/proxy, too, on the pods' own address: faster on some clusters. The same
    /// proof guards them, but every pod can knock there
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pods_proxy: Option<bool>,
    /// Whether to make a NetworkPolicy that lets callers of intercepted Services into the relay's
    /// pods; `auto`: where another policy isolates them. It opens ports 20000 to 20511 to everybody,
    /// and where no other policy selects the pods it closes all others [default: auto]
    #[arg(long, value_name = "WHEN")]
    network_policy: Option<NetworkPolicy>,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    settings: SettingFlags<{ on::INSTALL }>,
}

impl InstallArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkPolicy {
    Auto,
    On,
    Off,
}

impl From<NetworkPolicy> for Choice {
    fn from(policy: NetworkPolicy) -> Self {
        match policy {
            NetworkPolicy::Auto => Self::Auto,
            NetworkPolicy::On => Self::On,
            NetworkPolicy::Off => Self::Off,
        }
    }
}

/// Upgrade the relay of a namespace to this kdev's version
#[derive(Debug, Args)]
#[command(after_help = UPGRADE)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    settings: SettingFlags<{ on::INSTALL }>,
}

impl UpgradeArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// Image that contains the relay
    #[arg(long, value_name = "IMAGE", conflicts_with = "base_image")]
    image: Option<String>,
    /// Image with sh and gunzip that unpacks the relay and runs it [default: public busybox]
    #[arg(long, value_name = "IMAGE")]
    base_image: Option<String>,
    /// The relay's program, once for each architecture [default: those that came with kdev]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    relay_binary: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct HowArgs {
    /// Go back to an older version, overwrite what others changed, and go on where the dry run of a
    /// pod is refused
    #[arg(long)]
    force: bool,
    /// Keep what was made where a later step fails, to look at it
    #[arg(long)]
    keep: bool,
    /// Print what would be applied, with masked keys, and change nothing; with --show-keys it is for
    /// `kubectl apply --server-side`
    #[arg(long)]
    dry_run: bool,
    /// Print the two keys, too; whoever has one can use the relay
    #[arg(long, requires = "dry_run")]
    show_keys: bool,
    /// Format of --dry-run [default: yaml]
    #[arg(short, long, value_name = "FORM", requires = "dry_run")]
    output: Option<Form>,
    /// How long the pods may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Print one JSON document at the end
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

/// A rule as the relay reads it, kept as the user wrote it.
fn rule(text: &str) -> Result<String, String> {
    text.parse::<Rule>().map(|_| text.to_owned())
}

impl SourceArgs {
    fn source(&self) -> Option<Source> {
        let image = self.image.clone().map(Source::Image);
        image.or_else(|| self.base_image.clone().map(Source::BaseImage))
    }
}

/// `given` is what the command line says.
pub(super) async fn install(
    args: InstallArgs,
    given: &Given,
    config: &Config,
) -> anyhow::Result<u8> {
    let request = Request {
        source: args.source.source(),
        replicas: args.replicas,
        allow: args.allow,
        deny: args.deny,
        pods_proxy: args.pods_proxy,
        network_policy: args.network_policy.map(Choice::from),
        shape: config.shape.clone(),
        binaries: args.source.relay_binary,
        force: args.how.force,
        keep: args.how.keep,
        upgrade: false,
        timeout: Duration::from_secs(args.how.timeout),
    };
    run(request, &args.how, given, config).await
}

/// `given` is what the command line says.
pub(super) async fn upgrade(
    args: UpgradeArgs,
    given: &Given,
    config: &Config,
) -> anyhow::Result<u8> {
    let request = Request {
        source: args.source.source(),
        replicas: None,
        allow: None,
        deny: None,
        pods_proxy: None,
        network_policy: None,
        shape: config.shape.clone(),
        binaries: args.source.relay_binary,
        force: args.how.force,
        keep: args.how.keep,
        upgrade: true,
        timeout: Duration::from_secs(args.how.timeout),
    };
    run(request, &args.how, given, config).await
}

async fn run(
    request: Request,
    how: &HowArgs,
    given: &Given,
    config: &Config,
) -> anyhow::Result<u8> {
    let spinner = output::Spinner::new("Looking at the namespace");
    let say = |what: &str| spinner.say(what);
    let plan = spinner.during(Plan::make(config, &request, &say)).await?;
    plan.notes().iter().for_each(|note| output::note(note));
    if how.dry_run {
        let mut objects = plan.objects().to_vec();
        if !how.show_keys {
            objects.iter_mut().for_each(mask);
        }
        let text = written(&objects, how.output.unwrap_or(Form::Yaml))?;
        output::data(&format!("{}\n", text.trim_end()))?;
        return Ok(0);
    }
    let rehearsing = output::progress("Asking the cluster whether it takes this", async {
        plan.rehearse(&request).await
    });
    rehearsing.await?.iter().for_each(|note| output::note(note));
    let spinner = output::Spinner::new("Installing the relay");
    let mut tell = |event: Event<'_>| {
        let text = match event {
            Event::Object(done) => object(done),
            Event::Pods(progress) => {
                spinner.say(&pods(progress));
                progress.trouble.clone()
            }
            Event::Note(text) => Some(text),
        };
        if let Some(text) = text {
            output::note(&text);
        }
    };
    let installed = match spinner.during(plan.carry_out(&request, &mut tell)).await? {
        Outcome::Installed(installed) => installed,
        Outcome::Interrupted(number) => return Ok(128 + number),
    };
    if how.json {
        output::json(&installed, true)?;
    } else {
        output::line(&summary(&installed))?;
        if !request.upgrade {
            output::line(&next(given))?;
        }
    }
    Ok(0)
}

/// Puts something in place of a key that no API server takes for one.
fn mask(object: &mut Value) {
    if object["kind"] == "Secret"
        && let Some(data) = object["data"].as_object_mut()
    {
        data.values_mut().for_each(|value| *value = json!(MASKED));
    }
}

/// What is worth a line of its own: objects that are as they were are not.
pub(super) fn object(done: &Done) -> Option<String> {
    let what = match done.action {
        Action::Created => "created",
        Action::Changed => "changed",
        Action::Deleted => "deleted",
        Action::Unchanged => return None,
    };
    Some(format!("{} {} {what}", done.kind, done.name))
}

fn pods(progress: &Progress) -> String {
    let Progress {
        wanted, ready, old, ..
    } = progress;
    match old {
        0 => format!("{ready} of {wanted} relay pods ready"),
        old => format!("{ready} of {wanted} relay pods ready, {old} to replace"),
    }
}

fn summary(installed: &Installed) -> String {
    let Installed {
        namespace,
        version,
        was,
        ready,
        changed,
        ..
    } = installed;
    let pods = match ready {
        1 => "1 pod".to_owned(),
        n => format!("{n} pods"),
    };
    let place = format!("relay {version} in namespace {namespace}, {pods} ready");
    match was {
        _ if !changed => format!("Nothing to change: {place}."),
        Some(was) if was != version => format!("Upgraded from {was}: {place}."),
        _ => format!("Installed: {place}."),
    }
}

/// What to do with it: the flags that chose the place choose it again, where files and variables do it
/// by themselves.
fn next(given: &Given) -> String {
    let flags = given.iter().filter(|(setting, _)| is_place(setting.key));
    let flags = flags.flat_map(|(setting, value)| {
        let flag = match setting.short {
            Some(short) => format!("-{short}"),
            None => format!("--{}", setting.key),
        };
        [flag, posix_word(&word(&value.to_string()))]
    });
    let flags: String = flags.map(|word| word + " ").collect();
    format!(
        "Next: kdev run {flags}-- COMMAND\n\
         \x20 or kdev intercept {flags}SERVICE -- COMMAND"
    )
}

fn written(objects: &[Value], form: Form) -> anyhow::Result<String> {
    match form {
        Form::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            Ok(serde_json::to_string_pretty(&list)?)
        }
        Form::Yaml => {
            // Folded, the program's base64 would end in a line break that it does not have.
            let write = |object| {
                let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
                serde_saphyr::to_string_with_options(object, options)
            };
            let documents: Result<Vec<String>, _> = objects.iter().map(write).collect();
            Ok(format!("{HEAD}{}", documents?.join("---\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting;

    #[test]
    fn the_next_step_leads_to_the_same_place() {
        let given = |all: &[(&str, &str)]| -> Given {
            let all = all.iter().map(|(key, text)| {
                let setting = setting(key).unwrap();
                (setting, setting.read(text).unwrap())
            });
            all.collect()
        };
        assert_eq!(
            next(&given(&[])),
            "Next: kdev run -- COMMAND\n  or kdev intercept SERVICE -- COMMAND"
        );
        let place = [
            ("label", "team=shop"),
            ("kubeconfig", "my config"),
            ("namespace", "dev"),
            ("log-format", "json"),
        ];
        assert_eq!(
            next(&given(&place)),
            "Next: kdev run --kubeconfig 'my config' -n dev -- COMMAND\n  \
             or kdev intercept --kubeconfig 'my config' -n dev SERVICE -- COMMAND"
        );
    }
}
