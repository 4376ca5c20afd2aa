//! What a person sees: lines, errors, colour only where it helps.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use super::progress::above;
pub(super) use super::progress::{Spinner, progress};

/// Prints a line on standard output at once, also into a pipe.
///
/// # Errors
/// When it cannot be written, unless the reader just went away, which is its right.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    let mut written = Ok(());
    above(|| {
        let mut out = std::io::stdout().lock();
        written = writeln!(out, "{text}").and_then(|()| out.flush());
    });
    match written {
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
    above(|| drop(writeln!(std::io::stderr(), "{kdev} {text}")));
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
