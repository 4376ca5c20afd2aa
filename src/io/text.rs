//! Text that others wrote, for a terminal: kdev's own, or one on which a client shows an answer.

/// Whether a character does something to a terminal instead of being seen: controls (C0, DEL, C1),
/// what changes the direction of text, and what takes no room.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{115f}' | '\u{1160}' | '\u{3164}'
            | '\u{ffa0}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text whose harmful characters, but for those to `keep`, are written as Rust and JavaScript write
/// them: `\r`, `\u{1b}`.
pub fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmful(c) && !keep(c) {
            true => seen.extend(c.escape_default()),
            false => seen.push(c),
        }
    }
    seen
}

/// Lines, made harmless.
#[must_use]
pub fn lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}
