//! `kdev doctor`.

use clap::Args;

use super::output;
use super::terminal::{self, Text, message};
use crate::app::doctor::{self, Check, Report, Status};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  kdev doctor                what works with this kubeconfig, and what to do about the rest
  kdev doctor -n shop        the same for another namespace
  kdev doctor --json | jq -r '.checks[] | select(.status == \"fail\") | .id'

It changes nothing in the cluster. On this machine it starts a container on each of a few networks,
of an image that is already here, and removes it.

Exit code: 1 when something that kdev needs is missing, else 0.";

/// Check access to the cluster, permissions and containers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DoctorArgs, config: &Config) -> anyhow::Result<u8> {
    let look = Look::of_stdout();
    let mut say = |check: &Check| {
        if !args.json {
            // A reader that went away is no reason to stop.
            drop(terminal::print(&look.lines(check)));
        }
    };
    let report = output::progress("Checking", doctor::run(config, &mut say)).await;
    if args.json {
        output::json(&report, true)?;
    } else {
        output::line(summary(&report).trim_end())?;
    }
    Ok(u8::from(!report.ok))
}

/// What the output can show.
#[derive(Clone, Copy, Debug)]
struct Look {
    terminal: bool,
    signs: bool,
}

impl Look {
    fn of_stdout() -> Self {
        let terminal = terminal::shows_output();
        // The first that is set decides, as in setlocale(3).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_ascii_lowercase();
        Self {
            terminal,
            signs: terminal && (locale.contains("utf-8") || locale.contains("utf8")),
        }
    }

    fn lines(self, check: &Check) -> Text {
        let (sign, word, code) = match check.status {
            Status::Ok => ("✓", "ok  ", "32"),
            Status::Warn => ("!", "warn", "33"),
            Status::Fail => ("✗", "FAIL", "31"),
            Status::Skipped => ("-", "skip", "2"),
        };
        let sign = if self.signs { sign } else { word };
        let text = Text::default().paint(self.terminal, code, sign);
        let skipped = match check.status {
            Status::Skipped => "not checked: ",
            _ => "",
        };
        let detail = message(&check.detail, "    ");
        let text = text.say(&format!(" {}: {skipped}{detail}\n", check.title));
        let Some(fix) = &check.fix else { return text };
        let fix = format!("fix: {}", message(fix, "    "));
        let text = text.say("    ").paint(self.terminal, "1", &fix);
        text.say("\n")
    }
}

fn summary(report: &Report) -> String {
    let count = |status| report.checks.iter().filter(|c| c.status == status).count();
    let fatal = report.checks.iter().filter(|c| c.is_fatal());
    let missing: Vec<&str> = fatal.map(|c| c.title.as_str()).collect();
    let mut text = String::new();
    if let Some(role) = &report.role {
        text.push_str("\nWhoever runs the cluster can give all rights at once with this:\n\n");
        for line in role.lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text.push('\n');
    text.push_str(&match (missing.as_slice(), count(Status::Warn)) {
        ([], 0) => "kdev has all that it needs here.\n".to_owned(),
        ([], 1) => "kdev has what it needs here; one thing could be better.\n".to_owned(),
        ([], n) => format!("kdev has what it needs here; {n} things could be better.\n"),
        (missing, _) => format!(
            "Something that kdev needs is missing: {}.\n",
            missing.join(", ")
        ),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Status) -> Check {
        Check {
            id: "login".to_owned(),
            title: "credentials".to_owned(),
            status,
            detail: "they expired".to_owned(),
            fix: Some("log in".to_owned()),
            needed: true,
        }
    }

    #[test]
    fn signs_are_for_terminals_that_can_show_them() {
        let plain = Look {
            terminal: false,
            signs: false,
        };
        assert_eq!(
            plain.lines(&check(Status::Fail)).as_str(),
            "FAIL credentials: they expired\n    fix: log in\n"
        );
        let rich = Look {
            terminal: false,
            signs: true,
        };
        assert!(
            rich.lines(&check(Status::Ok))
                .as_str()
                .starts_with("✓ credentials: ")
        );
    }

    #[test]
    fn the_end_says_whether_it_works() {
        let report = |status| Report {
            ok: true,
            checks: vec![check(status)],
            role: None,
        };
        assert!(summary(&report(Status::Ok)).contains("all that it needs"));
        assert!(summary(&report(Status::Warn)).contains("one thing could"));
        assert!(summary(&report(Status::Fail)).contains("missing: credentials"));
    }
}
