//! The proxies of the environment: what they are used for, whether they answer and let kdev in.

use std::time::Duration;

use futures_util::future::join_all;

use super::check::Check;
use super::server::proxy_fix;
use crate::addr::{ClusterDomain, Host, Target};
use crate::k8s::kubeconfig::Loaded;
use crate::run::environment::no_proxy;
use crate::upstream::{Chosen, Proxies, ProxyError};

const ID: &str = "local.proxies";
const TITLE: &str = "proxies for what is not the cluster's";

/// How long a proxy may take to answer, a helper's login included.
const LIMIT: Duration = Duration::from_secs(15);

/// What is asked for where the kubeconfig names no API server. Proxies answer for a name that
/// does not exist (RFC 6761) too, and say first whether they want a login.
const NOWHERE: &str = "kdev.invalid";

pub(super) async fn check(
    loaded: Option<&Loaded>,
    proxies: &Proxies,
    domain: &ClusterDomain,
) -> Check {
    let target = loaded.and_then(Loaded::target);
    let target = target.unwrap_or_else(|| Target::new(Host::Name(NOWHERE.to_owned()), 443));
    let used = proxies.used();
    let answers = used.iter().map(|(name, chosen)| {
        let target = &target;
        async move {
            match chosen {
                Ok(Some(chosen)) => (*name, Some(chosen), ask(chosen, target).await),
                Ok(None) => (*name, None, Ok(())),
                Err(error) => (*name, None, Err(error.clone())),
            }
        }
    });
    let dropped = no_proxy::merge(&proxies.vars().no, &[], domain.name()).dropped;
    judge(&join_all(answers).await, &proxies.vars().no, &dropped)
}

/// Whether the proxy answers and asks for no other login. That it refuses `target` is no fault.
async fn ask(chosen: &Chosen, target: &Target) -> Result<(), ProxyError> {
    match tokio::time::timeout(LIMIT, chosen.proxy.open(target)).await {
        Ok(Ok(_) | Err(ProxyError::Refused { .. } | ProxyError::NotConnected { .. })) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ProxyError::TimedOut {
            proxy: chosen.proxy.url().to_string(),
            after: LIMIT,
        }),
    }
}

fn judge(
    answers: &[(&'static str, Option<&Chosen>, Result<(), ProxyError>)],
    no_proxy: &str,
    dropped: &[String],
) -> Check {
    let mut parts = Vec::new();
    let mut fix = "";
    for (name, chosen, answer) in answers {
        parts.push(match (chosen, answer) {
            (_, Err(error)) => {
                fix = proxy_fix(error);
                let text = error.to_string();
                let what = text.split("; ").next().unwrap_or(&text).to_owned();
                format!("{name}: {what}")
            }
            (Some(chosen), Ok(())) => {
                format!("{name} ({}) answers and lets you in", chosen.proxy.url())
            }
            (None, Ok(())) => format!("{name} is kdev itself and not followed"),
        });
    }
    if parts.is_empty() {
        parts.push("none: all of it is dialled directly".to_owned());
    } else if !no_proxy.is_empty() {
        parts.push(format!("directly: NO_PROXY ({no_proxy})"));
    }
    if !dropped.is_empty() {
        parts.push(format!(
            "programs under `kdev run` get a NO_PROXY without {}, which would keep them from the \
             cluster",
            dropped.join(", ")
        ));
    }
    let detail = parts.join("; ");
    if fix.is_empty() {
        Check::ok(ID, TITLE, detail)
    } else {
        Check::warn(ID, TITLE, detail).fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn it_is_said_what_goes_where() {
        let check = judge(&[], "", &[]);
        assert_eq!(check.status, Status::Ok);
        let check = judge(
            &[("HTTPS_PROXY", None, Ok(()))],
            ".svc,.corp",
            &[".svc".to_owned()],
        );
        assert!(check.detail.contains("is kdev itself"), "{check:?}");
        assert!(check.detail.contains("without .svc"), "{check:?}");
        let error = ProxyError::LoginNeeded {
            proxy: "http://proxy:3128".to_owned(),
            methods: vec!["Basic realm=\"x\"".to_owned()],
        };
        let check = judge(&[("HTTPS_PROXY", None, Err(error))], "", &[]);
        assert_eq!(check.status, Status::Warn);
        assert!(
            check.detail.contains("asks for a login (Basic"),
            "{check:?}"
        );
        assert!(check.fix.unwrap().contains("USER:PASSWORD"));
    }
}
