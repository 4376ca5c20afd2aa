//! What allows a network of its own where the system refuses one.

use std::fs;

use crate::capture::wire::{Failure, Step};

/// Settings of the kernel that forbid user namespaces, with the value that does and what mends it.
const SETTINGS: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "an administrator allows them with `sysctl user.max_user_namespaces=10000`",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "an administrator allows them with `sysctl kernel.unprivileged_userns_clone=1`",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "an administrator allows them for kdev with an AppArmor profile, /etc/apparmor.d/kdev: `abi \
         <abi/4.0>, include <tunables/global> profile kdev /**/kdev flags=(unconfined) { userns, }`, \
         loaded by `apparmor_parser -r`",
    ),
];

/// What mends `failure`, as far as the system tells.
#[must_use]
pub fn advice(failure: &Failure) -> Option<String> {
    let user = "user namespaces are not to be had here";
    match failure.step {
        // With AppArmor the namespace is there, and what needs its privileges fails.
        Step::User | Step::Namespaces | Step::Network => {
            let set = SETTINGS.iter().find(|(path, value, _)| {
                fs::read_to_string(path).is_ok_and(|text| text.trim() == *value)
            });
            Some(match set {
                Some((_, _, mends)) => format!("{user}; {mends}"),
                None => format!(
                    "{user}, as in most containers; there, run kdev outside of the container"
                ),
            })
        }
        Step::Rules => Some(
            "the kernel lacks what it takes; `modprobe nft_tproxy nft_socket` loads it where it was \
             built as modules"
                .to_owned(),
        ),
        Step::Sockets | Step::Files | Step::Filter | Step::Talk => None,
    }
}
