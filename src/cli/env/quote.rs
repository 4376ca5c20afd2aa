//! One word in the languages of shells, whatever is in it.

/// For POSIX shells: nothing is special in single quotes but their end.
pub(super) fn posix(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// For POSIX shells, and as it is where nothing in it is special.
pub(in crate::cli) fn posix_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => posix(text),
    }
}

/// For fish, where a backslash in single quotes escapes itself and the quote.
pub(super) fn fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// For PowerShell, which takes typographic single quotes for plain ones; each is doubled.
pub(super) fn pwsh(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

/// For files of `NAME=value` as docker compose, Node and Python's dotenv read them. Single quotes
/// keep all but themselves as it is; a text with one is in double quotes with escapes.
pub(super) fn dotenv(text: &str) -> String {
    if !text.contains('\'') && !text.contains('\n') {
        return format!("'{text}'");
    }
    let text = text.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('$', r"\$").replace('\n', r"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_is_not() {
        assert_eq!(posix("a'b $c \\"), r"'a'\''b $c \'");
        assert_eq!(posix_word("~a"), "'~a'");
        assert_eq!(posix_word("shop-2.dev/x:y@z"), "shop-2.dev/x:y@z");
        assert_eq!(posix_word(""), "''");
        assert_eq!(fish("a'b $c \\"), r"'a\'b $c \\'");
        assert_eq!(pwsh("a'b\u{2019}$c"), "'a''b\u{2019}\u{2019}$c'");
        assert_eq!(dotenv("a b $c \"d\""), "'a b $c \"d\"'");
        assert_eq!(dotenv("a'b $c\n"), r#""a'b \$c\n""#);
    }
}
