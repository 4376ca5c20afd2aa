//! Events on the Service when an intercept begins and ends, for whoever looks at it with kubectl.
//! The role `edit` may not make any: then there are none.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::object::{name, uid};
use super::site::Site;
use crate::intercept::claim::Claim;
use crate::k8s::install::MANAGER;

/// Says that an intercept began.
pub(super) async fn started(site: &Site, live: &Value, claim: &Claim) {
    let text = format!("kdev intercept {} of {} began", claim.id, claim.owner);
    tell(site, (name(live), uid(live)), "InterceptStarted", &text).await;
}

/// Says that an intercept ended, and who ended it where that was not its owner.
pub(super) async fn ended(site: &Site, service: (&str, &str), claim: &Claim, by: Option<&str>) {
    let by = by.map_or_else(String::new, |by| format!(", by {by}"));
    let text = format!("kdev intercept {} of {} ended{by}", claim.id, claim.owner);
    tell(site, service, "InterceptEnded", &text).await;
}

async fn tell(site: &Site, (service, uid): (&str, &str), reason: &str, message: &str) {
    let now = timestamp();
    let namespace = &site.namespace;
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{service}.{:016x}", rand::random::<u64>()),
            "namespace": namespace,
        },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Service", "namespace": namespace,
            "name": service, "uid": uid,
        },
        "type": "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    let path = format!("/api/v1/namespaces/{namespace}/events");
    if let Err(error) = site.client.post::<Value>(&path, &event).await {
        tracing::debug!(%error, reason, "no event");
    }
}

/// Now, as RFC 3339 has it.
fn timestamp() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970-01-01: years begin in March here, so that a leap day is the
/// last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_779), (2026, 11, 22));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }
}
