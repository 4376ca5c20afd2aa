//! What a person sees: lines, errors, colour only where it helps.

use serde::Serialize;

pub(super) use super::progress::{Spinner, progress};
use super::terminal::{self, Text, message};

/// Prints lines on standard output at once, also into a pipe.
///
/// # Errors
/// When they cannot be written, unless the reader just went away, which is its right.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    show(Text::default().say(text))
}

/// As [`line`], for a text that has colours.
pub(super) fn show(text: Text) -> anyhow::Result<()> {
    lines(&text.say("\n"))
}

/// As [`show`], for whole lines.
pub(super) fn lines(text: &Text) -> anyhow::Result<()> {
    written(terminal::print(text))
}

/// Prints what a program is to read, such as a script: exactly as it is, unless somebody looks at it.
///
/// # Errors
/// As [`line`].
pub(super) fn data(text: &str) -> anyhow::Result<()> {
    written(terminal::data(text))
}

/// Prints a JSON document, `pretty` or on one line.
///
/// # Errors
/// As [`line`], and when there is no JSON for it.
pub(super) fn json(document: &impl Serialize, pretty: bool) -> anyhow::Result<()> {
    let text = match pretty {
        true => serde_json::to_string_pretty(document)?,
        false => serde_json::to_string(document)?,
    };
    line(&terminal::json(&text))
}

fn written(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Prints a remark on standard error. One that cannot be written is no reason to stop.
pub(super) fn note(text: &str) {
    let kdev = Text::default().paint(terminal::shows_errors(), "2", "kdev:");
    let text = message(text, "      ");
    terminal::tell(&kdev.say(&format!(" {text}\n")));
}

/// Prints an error on standard error: what failed, why, and what to do, each once.
pub(super) fn error(error: &anyhow::Error) {
    let mut said = error.to_string();
    let bold = Text::default().paint(terminal::shows_errors(), "1;31", "error:");
    let mut text = bold.say(&format!(" {}\n", Advice::split(&said)));
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many libraries repeat their cause in their own text.
        if !said.contains(&cause) {
            text = text.say(&format!("  because {}\n", Advice::split(&cause)));
            said = cause;
        }
    }
    terminal::tell(&text);
}

/// Prints what is wrong with the command line.
pub(super) fn usage(text: &str) {
    let shown = match text.strip_prefix("error:") {
        Some(told) => {
            let bold = Text::default().paint(terminal::shows_errors(), "1;31", "error:");
            bold.say(told.trim_end())
        }
        // The help, where a command lacks all that it needs.
        None => Text::default().say(text.trim_end()),
    };
    terminal::tell(&shown.say("\n"));
}

/// A sentence and what follows its last semicolon on a line of its own: that is where errors say
/// what to do.
struct Advice;

impl Advice {
    fn split(text: &str) -> String {
        match text.rsplit_once("; ") {
            Some((what, fix)) if fix.len() > 12 => {
                format!("{}\n  fix: {}", message(what, "  "), message(fix, "  "))
            }
            _ => message(text, "  "),
        }
    }
}

/// Bytes as people read them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn advice_gets_its_own_line() {
        assert_eq!(
            Advice::split("no kubeconfig; set KUBECONFIG or pass --kubeconfig"),
            "no kubeconfig\n  fix: set KUBECONFIG or pass --kubeconfig"
        );
        assert_eq!(Advice::split("plain"), "plain");
        assert_eq!(
            Advice::split("a webhook said \u{1b}[1m\n  fix: sh evil; ask whoever runs it"),
            "a webhook said \\u{1b}[1m\n  | fix: sh evil\n  fix: ask whoever runs it"
        );
    }
}
