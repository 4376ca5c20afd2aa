//! Whose intercepts these are.

use crate::config::Config;
use crate::rule::LONGEST_OWNER;

/// The name that the team sees.
#[must_use]
pub fn owner(config: &Config) -> String {
    if let Some(owner) = &config.owner {
        return owner.clone();
    }
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    let user = user.ok().flatten().map(|user| user.name);
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|host| host.into_string().ok());
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    // Without its domain, which a team shares.
    let host = host.split('.').next().unwrap_or_default();
    let owner = format!("{}@{host}", user.unwrap_or_else(|| "somebody".to_owned()));
    let owner: String = owner.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=LONGEST_OWNER.min(owner.len())).rfind(|at| owner.is_char_boundary(*at));
    owner[..end.unwrap_or_default()].to_owned()
}

/// The value of `--mine`: what stands before the `@`.
#[must_use]
pub fn mine(owner: &str) -> &str {
    match owner.split_once('@') {
        Some((user, _)) if !user.is_empty() => user,
        _ => owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_always_owns_it() {
        let owner = owner(&Config::default());
        assert!(
            owner.contains('@') && owner.len() <= LONGEST_OWNER,
            "{owner}"
        );
        assert_eq!(mine("ada@laptop"), "ada");
        assert_eq!(mine("ada"), "ada");
        assert_eq!(mine("@x"), "@x");
    }
}
