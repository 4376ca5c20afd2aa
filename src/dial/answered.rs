//! Addresses that the cluster's DNS gave for names that are the cluster's by the user's word.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are kept: a program talks to some tens of hosts.
const MOST: usize = 4096;
/// How long one is good after it was last given or dialled. Programs keep addresses far longer
/// than their DNS records say.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// What was answered. Programs that look a name up themselves dial its address, which says no
/// more whose it is. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Answered(Arc<Mutex<HashMap<IpAddr, Instant>>>);

impl Answered {
    /// Notes an address that was given.
    pub fn note(&self, ip: IpAddr) {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&ip) {
            all.retain(|_, at| at.elapsed() < KEPT);
            if all.len() >= MOST
                && let Some(oldest) = all.iter().min_by_key(|(_, at)| **at).map(|(ip, _)| *ip)
            {
                all.remove(&oldest);
            }
        }
        all.insert(ip, Instant::now());
    }

    /// Whether an address was given, and so is the cluster's.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        let mut all = self.all();
        match all.get_mut(&ip) {
            Some(at) if at.elapsed() < KEPT => {
                *at = Instant::now();
                true
            }
            _ => false,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let answered = Answered::default();
        let ip = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..MOST {
            answered.note(ip(n));
        }
        assert!(answered.has(ip(0)), "and is young again");
        answered.note(ip(MOST));
        assert!(answered.has(ip(0)) && answered.has(ip(MOST)));
        assert!(!answered.has(ip(1)));
        assert_eq!(answered.all().len(), MOST);
    }
}
