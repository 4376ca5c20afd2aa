//! How many connections this process may hold.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that a full proxy, its tunnels and the catalog take, and what macOS allows of it at
/// least (OPEN_MAX). Not more, since the app inherits the limit and some programs walk through all
/// that there may be.
const WANTED: [u64; 2] = [20_000, 10_240];

/// Raises the limit on open files, which shells set to 256 (macOS) or 1024, to what the user may
/// have of it. What cannot be raised shows later, in the error of whatever had no descriptor.
pub fn raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    for wanted in WANTED.map(|wanted| wanted.min(hard)) {
        if wanted <= soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            return;
        }
    }
}

/// How many files this process may have open now.
#[must_use]
pub fn allowed() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}
