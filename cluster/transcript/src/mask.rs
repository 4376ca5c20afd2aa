//! What differs from run to run.

/// Puts words in place of ids: `ID` for container ids, `UUID`, `cni-UUID`.
#[must_use]
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '-' {
            word.push(c);
        } else {
            out.push_str(masked(&word));
            word.clear();
            out.push(c);
        }
    }
    out + masked(&word)
}

fn masked(word: &str) -> &str {
    let uuid = |word: &str| {
        let lengths = word.split('-').map(str::len);
        let hex = word.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
        hex && lengths.eq([8, 4, 4, 4, 12])
    };
    if word.strip_prefix("cni-").is_some_and(uuid) {
        "cni-UUID"
    } else if uuid(word) {
        "UUID"
    } else if word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
        "ID"
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_become_words_and_the_rest_stays() {
        let id = "0123456789abcdef".repeat(4);
        let text = format!("port 9 of \"{id}\", uid 5d0f0a00-0000-4000-8000-00000000000a: refused");
        assert_eq!(super::mask(&text), "port 9 of \"ID\", uid UUID: refused");
        assert_eq!(super::mask("a-b deadbeef"), "a-b deadbeef");
    }
}
