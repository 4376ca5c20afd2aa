//! Names that a user may have meant. Pure.

/// How many are offered.
const OFFERED: usize = 3;

/// Those of `known` that differ from `asked` by a slip, the likeliest first.
pub(super) fn similar<'a>(known: impl IntoIterator<Item = &'a str>, asked: &str) -> Vec<&'a str> {
    let known = known.into_iter();
    let mut found: Vec<(usize, &str)> = known
        .filter_map(|known| Some((slips(known, asked)?, known)))
        .collect();
    found.sort_unstable();
    found.truncate(OFFERED);
    found.into_iter().map(|(_, known)| known).collect()
}

/// How far two names are apart, if that is a slip: a letter or two that are wrong, missing or
/// swapped, or a part that was left out.
fn slips(known: &str, asked: &str) -> Option<usize> {
    /// Shorter names than this are contained in too many.
    const MIN_PART: usize = 3;
    /// A part comes behind what was mistyped.
    const PART: usize = 3;
    let letters = match asked.len().max(known.len()) {
        0..=1 => 0,
        2..=3 => 1,
        _ => 2,
    };
    // Names are ASCII, and no longer than 63 letters.
    let distance = strsim::osa_distance(known, asked);
    if distance <= letters {
        return Some(distance);
    }
    let contained = asked.len() >= MIN_PART && known.contains(asked)
        || known.len() >= MIN_PART && asked.contains(known);
    contained.then_some(PART)
}

/// `did you mean web?`; nothing where there is nothing to offer.
pub(super) fn did_you_mean(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_other_names_are_not() {
        let known = ["web", "web-admin", "pg", "orders", "redis"];
        for (asked, meant) in [
            ("wbe", &["web"][..]),
            ("we", &["web"]),
            ("webb", &["web"]),
            ("web-admn", &["web-admin", "web"]),
            ("order", &["orders"]),
            ("odrers", &["orders"]),
            ("api", &[]),
            ("x", &[]),
            ("github", &[]),
        ] {
            assert_eq!(similar(known, asked), meant, "{asked}");
        }
    }
}
