//! `kdev doctor`.

use clap::Args;

use super::output;
use super::terminal::{self, Text, message};
use super::wrap::wrap;
use crate::app::doctor::{self, Answer, Check, Report, Status};
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  kdev doctor                what you can do with this kubeconfig, and what mends the rest
  kdev doctor -n shop        the same for another namespace
  kdev doctor -v             all that was looked at, not only what is wrong
  kdev doctor --json | jq -r '.answers[] | select(.can != true) | .fix'

It changes nothing in the cluster. Whether `install` would go through is asked in a dry run of the
API server. Where there is a relay, one of its pods connects to a Service beside it, and hangs up.
On this machine kdev starts a container on each of a few networks, of an image that is already here,
and removes it.

Exit code: 1 when something that kdev needs is missing, else 0; that intercepts or an install are
not possible is no failure.";

/// Check access to the cluster, permissions and containers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DoctorArgs, all: bool, config: &Config) -> anyhow::Result<u8> {
    let report = output::progress("Checking", doctor::run(config)).await;
    if args.json {
        output::json(&report, true)?;
    } else {
        output::lines(&Look::of_stdout().report(&report, all))?;
    }
    Ok(u8::from(!report.ok))
}

/// What the output can show.
#[derive(Clone, Copy, Debug)]
struct Look {
    terminal: bool,
    signs: bool,
    width: usize,
}

/// Where what follows the first words of an answer begins.
const ANSWER: &str = "            ";
/// What continues a check, and what continues its fix.
const CHECK: &str = "    ";
const FIX: &str = "         ";

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
            width: terminal::width(),
        }
    }

    /// The answers first, then the checks: `all`, or those that say what the answers do not.
    fn report(self, report: &Report, all: bool) -> Text {
        let mut text = self.answers(Text::default(), &report.answers);
        let told = |check: &Check| report.answers.iter().any(|a| a.checks.contains(&check.id));
        let is_news = |check: &&Check| {
            all || matches!(check.status, Status::Warn | Status::Fail) && !told(check)
        };
        let shown: Vec<&Check> = report.checks.iter().filter(is_news).collect();
        if !shown.is_empty() {
            text = text.say("\n");
        }
        for check in &shown {
            text = self.check(text, check);
        }
        if let Some(role) = &report.role {
            text = text.say("\nWhoever runs the cluster can give these rights with this:\n\n");
            for line in role.lines() {
                text = text.say(&format!("  {line}\n"));
            }
        }
        let count = report.checks.len();
        match shown.len() < count {
            true => text.say(&format!("\n`kdev doctor -v` shows all {count} checks.\n")),
            false => text,
        }
    }

    fn answers(self, mut text: Text, answers: &[Answer]) -> Text {
        for (can, head, code) in [
            (Some(true), "you can:", "32"),
            (Some(false), "you cannot:", "31"),
            (None, "not known:", "33"),
        ] {
            let mut head = head;
            for group in groups(answers, can) {
                let said = match (can, &group.reason) {
                    (Some(true), _) => group.names.join(", "),
                    (_, reason) => {
                        let reason = message(reason.as_deref().unwrap_or_default(), ANSWER);
                        format!("{}, because {reason}", group.names.join(", "))
                    }
                };
                let said = wrap(&format!("{ANSWER}{said}"), self.width, ANSWER);
                // Spaces take the place of the head where it was said already.
                if !head.is_empty() {
                    text = text.paint(self.terminal, code, head);
                }
                text = text.say(&said[head.len()..]).say("\n");
                head = "";
                if let Some(fix) = &group.fix {
                    let fix = format!("{ANSWER}fix: {}", message(fix, ANSWER));
                    let fix = wrap(&fix, self.width, &format!("{ANSWER}     "));
                    text = text.paint(self.terminal, "1", &fix).say("\n");
                }
            }
        }
        text
    }

    fn check(self, text: Text, check: &Check) -> Text {
        let (sign, word, code) = match check.status {
            Status::Ok => ("✓", "ok  ", "32"),
            Status::Warn => ("!", "warn", "33"),
            Status::Fail => ("✗", "FAIL", "31"),
            Status::Skipped => ("-", "skip", "2"),
        };
        let sign = if self.signs { sign } else { word };
        let skipped = match check.status {
            Status::Skipped => "not checked: ",
            _ => "",
        };
        let detail = message(&check.detail, CHECK);
        let line = wrap(
            &format!("{sign} {}: {skipped}{detail}", check.title),
            self.width,
            CHECK,
        );
        let text = text.paint(self.terminal, code, sign);
        let text = text.say(&line[sign.len()..]).say("\n");
        let Some(fix) = &check.fix else { return text };
        let fix = format!("{CHECK}fix: {}", message(fix, CHECK));
        let fix = wrap(&fix, self.width, FIX);
        text.paint(self.terminal, "1", &fix).say("\n")
    }
}

/// Commands with the same answer.
struct Group {
    names: Vec<String>,
    reason: Option<String>,
    fix: Option<String>,
}

/// The commands with this answer: those that work together, the others by reason and fix.
fn groups(answers: &[Answer], can: Option<bool>) -> Vec<Group> {
    let mut all: Vec<Group> = Vec::new();
    for answer in answers.iter().filter(|answer| answer.can == can) {
        let mut name = answer.command.clone();
        if name == "intercept" {
            name.push_str(" (global or personal)");
        }
        let (reason, fix) = match (can, &answer.reason) {
            (Some(true), Some(remark)) => {
                name = format!("{name} ({})", message(remark, ANSWER));
                (None, None)
            }
            (_, reason) => (reason.clone(), answer.fix.clone()),
        };
        match all.iter_mut().find(|g| g.reason == reason && g.fix == fix) {
            Some(group) => group.names.push(name),
            None => all.push(Group {
                names: vec![name],
                reason,
                fix,
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        terminal: false,
        signs: false,
        width: 60,
    };

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

    fn answer(command: &str, can: Option<bool>, reason: &str, fix: &str) -> Answer {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let checks = match can {
            Some(false) => vec!["login".to_owned()],
            _ => Vec::new(),
        };
        Answer {
            command: command.to_owned(),
            can,
            reason: text(reason),
            fix: text(fix),
            checks,
        }
    }

    fn report(answers: Vec<Answer>, status: Status) -> Report {
        Report {
            ok: true,
            answers,
            checks: vec![check(status)],
            role: None,
        }
    }

    #[test]
    fn signs_are_for_terminals_that_can_show_them() {
        let shown = |look: Look, status| look.check(Text::default(), &check(status));
        assert_eq!(
            shown(PLAIN, Status::Fail).as_str(),
            "FAIL credentials: they expired\n    fix: log in\n"
        );
        let rich = Look {
            signs: true,
            ..PLAIN
        };
        let text = shown(rich, Status::Ok);
        assert!(text.as_str().starts_with("✓ credentials: "));
    }

    #[test]
    fn the_answers_come_first_and_what_they_say_is_not_repeated() {
        let why = "you may not get secrets/kdev-relay-intercept in namespace shop";
        let answers = vec![
            answer("run", Some(true), "commands", ""),
            answer("forward", Some(true), "", ""),
            answer("intercept", Some(false), why, "ask for the role `edit`"),
            answer("install", None, "nobody answers", ""),
        ];
        let report = report(answers, Status::Warn);
        assert_eq!(
            PLAIN.report(&report, false).as_str(),
            "you can:    run (commands), forward\n\
             you cannot: intercept (global or personal), because you may\n            \
             not get secrets/kdev-relay-intercept in\n            \
             namespace shop\n            \
             fix: ask for the role `edit`\n\
             not known:  install, because nobody answers\n\n\
             `kdev doctor -v` shows all 1 checks.\n"
        );
        let all = PLAIN.report(&report, true);
        assert!(
            all.as_str()
                .ends_with("\n\nwarn credentials: they expired\n    fix: log in\n"),
            "{}",
            all.as_str()
        );
    }

    #[test]
    fn what_has_one_reason_stands_together() {
        let no = |command| answer(command, Some(false), "they expired", "log in");
        let other = answer("install", Some(false), "no room", "");
        let report = report(vec![no("run"), no("forward"), other], Status::Fail);
        assert_eq!(
            PLAIN.report(&report, true).as_str(),
            "you cannot: run, forward, because they expired\n            \
             fix: log in\n            \
             install, because no room\n\n\
             FAIL credentials: they expired\n    fix: log in\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = "a proxy before the API server lets no upgrades through ".repeat(5);
        let mut check = check(Status::Fail);
        check.detail = format!("{long}\n{long}");
        check.fix = Some(long.clone());
        let mut report = report(vec![answer("run", Some(false), &long, &long)], Status::Fail);
        report.checks = vec![check];
        let text = PLAIN.report(&report, true);
        let words = |text: &str| -> Vec<String> {
            let words = text.split([' ', '\n', '|']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        for line in text.as_str().lines() {
            assert!(line.chars().count() <= PLAIN.width, "{line}");
        }
        let known = words(&format!(
            "you cannot: run, because fix: FAIL credentials: {long}"
        ));
        for word in words(text.as_str()) {
            assert!(known.contains(&word), "{word} is a part of one");
        }
    }
}
