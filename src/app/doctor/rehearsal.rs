//! Whether the cluster would take a relay: quotas, limits, Pod Security and webhooks, in a dry run.

use std::time::Duration;

use tokio::time::Instant;

use super::check::Check;
use super::rights::Allowed;
use super::within;
use crate::app::install::{Foreseen, foresee};
use crate::config::Config;
use crate::k8s::Client;
use crate::k8s::install::site::InstallError;

/// How long looking at the namespace and the dry run may take.
const LIMIT: Duration = Duration::from_secs(6);

pub(super) const ID: &str = "install";
const TITLE: &str = "dry run of `kdev install`";

pub(super) fn skipped(why: &str) -> Check {
    Check::skipped(ID, TITLE, why)
}

pub(super) async fn check(
    client: &Client,
    config: &Config,
    allowed: &Allowed,
    until: Instant,
) -> Check {
    match allowed {
        Allowed::Yes => {}
        Allowed::Lacking(_) => return skipped("rights for it are missing"),
        Allowed::Unknown(why) => return skipped(why),
    }
    let namespace = client.namespace();
    match within(LIMIT, until, foresee(client, &config.shape)).await {
        Ok(Ok(Foreseen::Installed(version))) => {
            let version = version.map_or_else(String::new, |version| format!(" {version}"));
            let detail = format!("relay{version} is installed in namespace {namespace}");
            Check::ok(ID, TITLE, detail)
        }
        Ok(Ok(Foreseen::Accepted(notes))) => {
            let taken = format!("namespace {namespace} takes the relay's objects and pods");
            let all: Vec<String> = [taken].into_iter().chain(notes).collect();
            Check::ok(ID, TITLE, all.join("; "))
        }
        Ok(Err(error)) => refused(&error),
        Err(_) => skipped("the API server is too slow"),
    }
}

fn refused(error: &anyhow::Error) -> Check {
    let known = error.downcast_ref().and_then(InstallError::foreseen);
    match known {
        Some((what, fix)) => Check::warn(ID, TITLE, what).fix(fix),
        None => Check::warn(ID, TITLE, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_that_nothing_was_changed_who_only_asks() {
        let refused = refused(
            &InstallError::Foreign {
                what: "Secret kdev-relay".to_owned(),
                namespace: "shop".to_owned(),
                by: "is helm's".to_owned(),
            }
            .into(),
        );
        assert_eq!(
            refused.detail,
            "Secret kdev-relay in namespace shop is helm's"
        );
        assert!(refused.fix.unwrap().starts_with("choose another namespace"));
    }
}
