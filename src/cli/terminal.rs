//! The only place that writes to standard output and standard error, so that nothing that others
//! wrote (annotations, an API server's words, a colleague's name, a project's settings) does
//! something to the terminal: moves its cursor, hides or turns round text, or looks like a line of
//! kdev's own.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use super::progress::above;
use crate::io::text::{escaped, is_harmful, lines};

/// Longest text that is shown as one value, in characters: several lines of a terminal. What is
/// longer ends in `…`.
const LONGEST_WORD: usize = 500;
/// Longest message, in characters: a policy engine's answer about several objects.
const LONGEST_MESSAGE: usize = 8000;
/// Characters of a line where nobody says how many there are.
const USUAL_WIDTH: usize = 80;
/// Characters of a line that texts are laid out for at least.
const NARROWEST: usize = 40;

fn cut(text: String, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A value that others wrote, on one line and not longer than a few.
pub(super) fn word(text: &str) -> String {
    cut(escaped(text, |_| false), LONGEST_WORD)
}

/// A message whose further lines are marked, so that none of them looks like one of kdev's own.
pub(super) fn message(text: &str, mark: &str) -> String {
    let text = cut(lines(text.trim_end()), LONGEST_MESSAGE);
    let mut seen = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        if number > 0 {
            let _ = write!(seen, "\n{mark}| ");
        }
        seen += match number {
            0 => line,
            _ => line.strip_prefix("  ").unwrap_or(line),
        };
    }
    seen
}

/// JSON whose strings are as harmless to a terminal, and the same to who reads them.
pub(super) fn json(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        // Between values there are line ends, in strings they are escaped already.
        if is_harmful(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(seen, "\\u{unit:04x}");
            }
        } else {
            seen.push(c);
        }
    }
    seen
}

/// A text for a terminal: harmless, but for kdev's own colours.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Adds lines.
    pub(super) fn say(mut self, text: &str) -> Self {
        self.0 += &lines(text);
        self
    }

    /// As it is written.
    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Adds lines in a colour, where `terminal` may have one.
    pub(super) fn paint(mut self, terminal: bool, code: &str, text: &str) -> Self {
        let text = lines(text);
        if terminal && std::env::var_os("NO_COLOR").is_none() {
            let _ = write!(self.0, "\x1b[{code}m{text}\x1b[0m");
        } else {
            self.0 += &text;
        }
        self
    }
}

/// How many characters a line on standard output takes: as many as its terminal, or as is usual.
pub(super) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    // A terminal that does not know says 0.
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        0 => USUAL_WIDTH,
        columns => columns.max(NARROWEST),
    }
}

/// Whether somebody looks at standard output.
pub(super) fn shows_output() -> bool {
    io::stdout().is_terminal()
}

/// Whether somebody looks at standard error.
pub(super) fn shows_errors() -> bool {
    io::stderr().is_terminal()
}

/// Prints on standard output at once, also into a pipe.
///
/// # Errors
/// When it cannot be written.
pub(super) fn print(text: &Text) -> io::Result<()> {
    write(&text.0)
}

/// Writes on standard output, above what shows progress.
fn write(text: &str) -> io::Result<()> {
    let mut written = Ok(());
    above(|| {
        let mut out = io::stdout().lock();
        written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    });
    written
}

/// Prints what a program reads on standard output: exactly as it is, unless somebody looks at it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn data(text: &str) -> io::Result<()> {
    if shows_output() {
        return print(&Text::default().say(text));
    }
    write(text)
}

/// Sends on what was printed by a library.
pub(super) fn flush() {
    // Who went away does not miss it.
    let _ = io::stdout().flush();
}

/// Prints on standard error. What cannot be written is no reason to stop.
pub(super) fn tell(text: &Text) {
    above(|| {
        let mut out = io::stderr().lock();
        let _ = out.write_all(text.0.as_bytes());
        let _ = out.flush();
    });
}

/// The log: each event is a write, in one line or more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    /// Whether an event is a JSON document.
    pub(super) json: bool,
}

impl io::Write for Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.trim_end_matches('\n');
        let text = match self.json {
            true => Text(json(text)),
            false => levelled(&message(text, "  ")),
        };
        tell(&text.say("\n"));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the log with its level in colour. The log's own colours would not be told from those
/// in the texts of others.
fn levelled(line: &str) -> Text {
    const LEVELS: [(&str, &str); 5] = [
        ("ERROR", "31"),
        ("WARN", "33"),
        ("INFO", "32"),
        ("DEBUG", "34"),
        ("TRACE", "35"),
    ];
    // Before it there is at most the time.
    let first = line.split_whitespace().take(2);
    let found = first
        .flat_map(|word| LEVELS.iter().find(|(level, _)| *level == word))
        .next();
    let split = found.and_then(|level| Some((line.split_once(level.0)?, level)));
    let Some(((before, after), (level, code))) = split else {
        return Text::default().say(line);
    };
    let text = Text::default().say(before);
    text.paint(shows_errors(), code, level).say(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a stranger may write, and how it is seen.
    const HARM: [(&str, &str); 7] = [
        ("\u{1b}[2J", r"\u{1b}[2J"),
        ("\u{9b}31m", r"\u{9b}31m"),
        ("a\rb\u{8}\u{7f}", r"a\rb\u{8}\u{7f}"),
        ("\u{202e}txt.exe", r"\u{202e}txt.exe"),
        ("pay\u{200b}pal\u{feff}", r"pay\u{200b}pal\u{feff}"),
        ("\u{2028}\u{e0041}", r"\u{2028}\u{e0041}"),
        ("\u{1b}]8;;http://x\u{7}y", r"\u{1b}]8;;http://x\u{7}y"),
    ];

    #[test]
    fn what_others_wrote_does_nothing_to_a_terminal() {
        for (text, seen) in HARM {
            assert_eq!(word(text), seen);
            assert_eq!(message(text, ""), seen);
            assert_eq!(Text::default().say(text).0, seen);
            assert_eq!(Text::default().paint(false, "1", text).0, seen);
        }
        assert_eq!(word("grüße 日本 🙂"), "grüße 日本 🙂");
    }

    #[test]
    fn what_others_wrote_looks_like_no_line_of_kdevs() {
        assert_eq!(word("ada\nkdev: all is well"), r"ada\nkdev: all is well");
        assert_eq!(
            message("refused\nkdev: all is well\n  fix: pipe it to sh\n", "  "),
            "refused\n  | kdev: all is well\n  | fix: pipe it to sh"
        );
    }

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(
            word(&"ä".repeat(LONGEST_WORD)).chars().count(),
            LONGEST_WORD
        );
        let seen = word(&"ä".repeat(LONGEST_WORD + 1));
        assert_eq!(seen.chars().count(), LONGEST_WORD + 1);
        assert!(seen.ends_with("ä…"));
        let seen = message(&"\u{1b}".repeat(LONGEST_MESSAGE), "");
        assert_eq!(seen.chars().count(), LONGEST_MESSAGE + 1);
    }

    #[test]
    fn json_says_the_same_and_does_nothing_to_a_terminal() {
        for (text, _) in HARM {
            let value = serde_json::json!({"text": text, "other": "ü"});
            let seen = json(&serde_json::to_string_pretty(&value).unwrap());
            assert!(
                !seen.chars().any(|c| is_harmful(c) && c != '\n'),
                "{seen:?}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&seen).unwrap(),
                value
            );
        }
    }

    #[test]
    fn the_log_has_a_colour_for_its_level_alone() {
        assert_eq!(levelled(" WARN INFO is a word").0, " WARN INFO is a word");
        assert_eq!(levelled("no level here ERROR").0, "no level here ERROR");
    }
}
