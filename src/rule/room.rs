//! Whether one more claim fits beside others, as far as its patterns go.

use super::{Claim, Invalid, MOST_PATTERNS, MOST_PATTERNS_OF_SESSION};

/// Whether the patterns of `claim` fit beside those of `others` on its port.
///
/// # Errors
/// Why they do not, and what would.
pub fn room<'a>(claim: &Claim, others: impl IntoIterator<Item = &'a Claim>) -> Result<(), Invalid> {
    let tried = |claim: &Claim| claim.conditions.tried();
    let mine = tried(claim);
    if mine == 0 {
        return Ok(());
    }
    let (mut of_session, mut of_all) = (mine, mine);
    for other in others.into_iter().filter(|other| other.id != claim.id) {
        of_all += tried(other);
        if other.session == claim.session {
            of_session += tried(other);
        }
    }
    let (count, most, whose) = match of_session > MOST_PATTERNS_OF_SESSION {
        true => (of_session, MOST_PATTERNS_OF_SESSION, "this kdev's"),
        false => (of_all, MOST_PATTERNS, "all people's"),
    };
    if count <= most {
        return Ok(());
    }
    Err(Invalid(format!(
        "each request would be tried against {count} of {whose} regular expressions, more than \
         {most}; a condition beside them that is looked up (--header 'NAME: VALUE', --mine, \
         --baggage, --path, --path-prefix) costs nothing"
    )))
}
