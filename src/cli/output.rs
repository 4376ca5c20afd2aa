//! What a person sees: errors, progress, colour only where it helps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::terminal::{self, Text, message, word};

/// How long a step may take before it shows that it goes on.
const PATIENCE: Duration = Duration::from_millis(800);
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Prints lines on standard output at once, also into a pipe.
///
/// # Errors
/// When they cannot be written, unless the reader just went away, which is its right.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    show(Text::default().say(text))
}

/// As [`line`], for a text that has colours.
pub(super) fn show(text: Text) -> anyhow::Result<()> {
    written(terminal::print(&text.say("\n")))
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

/// Shows on a terminal that `what` goes on, once it takes longer than a moment.
pub(super) async fn progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    Spinner::new(what).during(work).await
}

/// A spinner on a terminal, under lines that are printed while the work goes on.
pub(super) struct Spinner {
    bar: Option<ProgressBar>,
    /// Before it spins there is nothing to draw around.
    spinning: AtomicBool,
}

impl Spinner {
    /// One that shows nothing yet.
    pub(super) fn new(what: &str) -> Self {
        Self {
            bar: terminal::shows_errors().then(|| spinner(what)),
            spinning: AtomicBool::new(false),
        }
    }

    /// Shows something else from now on.
    pub(super) fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} …", word(what)));
        }
    }

    /// Prints a line above the spinner.
    pub(super) fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) if self.spinning.load(Ordering::Relaxed) => bar.suspend(print),
            _ => print(),
        }
    }

    /// Waits for `work`, spinning once it takes longer than a moment.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
            return done;
        }
        if let Some(bar) = &self.bar {
            self.spinning.store(true, Ordering::Relaxed);
            bar.enable_steady_tick(TICK);
        }
        let done = work.await;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        done
    }
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(format!("{} …", word(what)));
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar
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
