//! What a person sees: errors, progress, colour only where it helps.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How long a step may take before it shows that it goes on.
const PATIENCE: Duration = Duration::from_millis(800);
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Prints a line on standard output at once, also into a pipe.
///
/// # Errors
/// When it cannot be written, unless the reader just went away, which is its right.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// A text that others wrote, without what would do something to a terminal.
pub(super) fn plain(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || c == '\n';
    text.chars()
        .map(|c| if harmless(c) { c } else { '?' })
        .collect()
}

/// Prints a remark on standard error. One that cannot be written is no reason to stop.
pub(super) fn note(text: &str) {
    let kdev = colour(std::io::stderr().is_terminal(), "2", "kdev:");
    let _ = writeln!(std::io::stderr(), "{kdev} {text}");
}

/// Prints an error on standard error: what failed, why, and what to do, each once.
pub(super) fn error(error: &anyhow::Error) {
    let bold = colour(std::io::stderr().is_terminal(), "1;31", "error:");
    let mut text = format!("{bold} {}\n", Advice::split(&error.to_string()));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many libraries repeat their cause in their own text.
        if !said.contains(&cause) {
            let _ = writeln!(text, "  because {}", Advice::split(&cause));
            said = cause;
        }
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A sentence and what follows its last semicolon on a line of its own: that is where errors say
/// what to do.
struct Advice;

impl Advice {
    fn split(text: &str) -> String {
        match text.rsplit_once("; ") {
            Some((what, fix)) if fix.len() > 12 => format!("{what}\n  fix: {fix}"),
            _ => text.to_owned(),
        }
    }
}

/// `text` in a colour, where the output is a terminal that may have colour.
pub(super) fn colour(terminal: bool, code: &str, text: &str) -> String {
    if terminal && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
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
        let terminal = std::io::stderr().is_terminal();
        Self {
            bar: terminal.then(|| spinner(what)),
            spinning: AtomicBool::new(false),
        }
    }

    /// Shows something else from now on.
    pub(super) fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{what} …"));
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
    let bar = ProgressBar::new_spinner().with_message(format!("{what} …"));
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
    fn what_others_wrote_does_nothing_to_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d"), "a?[2Jb\nc?d");
    }

    #[test]
    fn advice_gets_its_own_line() {
        assert_eq!(
            Advice::split("no kubeconfig; set KUBECONFIG or pass --kubeconfig"),
            "no kubeconfig\n  fix: set KUBECONFIG or pass --kubeconfig"
        );
        assert_eq!(Advice::split("plain"), "plain");
    }
}
