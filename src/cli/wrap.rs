//! Lines that end with a word.

/// Breaks lines at spaces so that none is wider than `width`, but for single words that are. What
/// continues the first line begins with `hang`; what continues another begins as that one does, with its
/// spaces and the mark of what others wrote (`| `).
pub(super) fn wrap(text: &str, width: usize, hang: &str) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / 8);
    for (number, line) in text.split('\n').enumerate() {
        let words = line.trim_start_matches([' ', '|']);
        let begin = &line[..line.len() - words.len()];
        let next = match number {
            0 => hang,
            _ => begin,
        };
        if number > 0 {
            wrapped.push('\n');
        }
        wrapped.push_str(begin);
        let mut column = begin.chars().count();
        for (number, word) in words.split(' ').enumerate() {
            let length = word.chars().count();
            if number > 0 {
                if column + 1 + length > width {
                    wrapped.push('\n');
                    wrapped.push_str(next);
                    column = next.chars().count();
                } else {
                    wrapped.push(' ');
                    column += 1;
                }
            }
            wrapped.push_str(word);
            column += length;
        }
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_cut() {
        let text = "warn credentials: they end in an hour, and nobody renews them";
        assert_eq!(
            wrap(text, 24, "    "),
            "warn credentials: they\n    end in an hour, and\n    nobody renews them"
        );
        let long = "see https://example.com/a/long/address/that/fits/nowhere now";
        assert_eq!(
            wrap(long, 20, "  "),
            "see\n  https://example.com/a/long/address/that/fits/nowhere\n  now"
        );
        assert_eq!(wrap("eins zwei", 9, "  "), "eins zwei");
        assert_eq!(wrap("ünïcödé ist breit", 11, ""), "ünïcödé ist\nbreit");
    }

    #[test]
    fn what_continues_a_marked_line_is_marked() {
        let text = "refused:\n    | pods need a label\n    | and limits";
        assert_eq!(
            wrap(text, 16, "  "),
            "refused:\n    | pods need\n    | a label\n    | and limits"
        );
    }
}
