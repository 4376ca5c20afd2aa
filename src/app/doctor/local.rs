//! What is on this machine: proxies in the environment, other sessions, the runtime folder.

use super::check::Check;
use crate::app::registry::{self, Found};
use crate::k8s::catalog::DEFAULT_DOMAIN;
use crate::k8s::kubeconfig::{Environment, Loaded};
use crate::run::environment::no_proxy;

pub(super) async fn checks(loaded: Option<&Loaded>) -> Vec<Check> {
    let folder = match registry::try_folder() {
        Ok(path) => Check::ok(
            "local.runtime-folder",
            "runtime folder",
            format!("{} takes sockets", path.display()),
        ),
        Err(error) => Check::warn(
            "local.runtime-folder",
            "runtime folder",
            format!("{error}; `kdev status` will not see sessions"),
        )
        .fix("set XDG_RUNTIME_DIR to a folder that only you may enter"),
    };
    vec![proxies(loaded), folder, sessions().await]
}

async fn sessions() -> Check {
    let (id, title) = ("local.sessions", "kdev sessions");
    match registry::sessions().await {
        Ok(all) if all.is_empty() => Check::ok(id, title, "none is running"),
        Ok(all) => {
            let connects = all
                .iter()
                .filter(|found| matches!(found, Found::Answers(s) if s.command == "connect"))
                .count();
            let detail = format!("{} running, {connects} of them `kdev connect`", all.len());
            Check::ok(id, title, detail)
        }
        Err(error) => Check::skipped(id, title, error.to_string()),
    }
}

fn proxies(loaded: Option<&Loaded>) -> Check {
    let vars = Environment::of_process().proxy;
    let named = [
        ("HTTPS_PROXY", &vars.https),
        ("HTTP_PROXY", &vars.http),
        ("ALL_PROXY", &vars.all),
    ];
    let set: Vec<String> = named
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", without_password(value)))
        .collect();
    let dropped = no_proxy::merge(&vars.no, &[], DEFAULT_DOMAIN).dropped;
    let used = loaded.map(Loaded::proxy);
    judge(&set, used, &dropped)
}

/// `used` is the proxy that kdev takes to the API server, where the kubeconfig is known.
fn judge(set: &[String], used: Option<Option<String>>, dropped: &[String]) -> Check {
    let (id, title) = ("local.proxies", "proxies of the environment");
    let mut parts = Vec::new();
    let mut fix = "";
    if !set.is_empty() {
        parts.push(set.join(", "));
        match used {
            Some(Some(proxy)) => parts.push(format!("the API server is reached through {proxy}")),
            Some(None) => parts.push("the API server is reached without them".to_owned()),
            None => {}
        }
        parts.push(
            "programs under `kdev run` get kdev's own, and what is not in the cluster is dialled \
             from here directly"
                .to_owned(),
        );
        fix = "where only the proxy leads to the internet, set it for the one program that needs \
               it: `kdev run -- env HTTPS_PROXY=… COMMAND`";
    }
    if !dropped.is_empty() {
        parts.push(format!(
            "under `kdev run` NO_PROXY loses {}, which would keep programs from the cluster",
            dropped.join(", ")
        ));
    }
    if parts.is_empty() {
        return Check::ok(id, title, "none");
    }
    let detail = parts.join("; ");
    if fix.is_empty() {
        Check::ok(id, title, detail)
    } else {
        Check::warn(id, title, detail).fix(fix)
    }
}

/// A proxy's URL as it may be shown.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => format!("…@{host}"),
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn it_is_said_what_a_proxy_is_used_for() {
        let set = ["HTTPS_PROXY=http://proxy:3128".to_owned()];
        let check = judge(&set, Some(Some("http://proxy:3128/".to_owned())), &[]);
        assert_eq!(check.status, Status::Warn);
        assert!(check.detail.contains("reached through http://proxy:3128/"));
        let check = judge(&set, Some(None), &[".svc".to_owned()]);
        assert!(check.detail.contains("reached without them"), "{check:?}");
        assert!(check.detail.contains("loses .svc"), "{check:?}");
        assert_eq!(judge(&[], Some(None), &[]).status, Status::Ok);
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = without_password("http://me:p@ss@proxy:3128");
        assert_eq!(shown, "http://…@proxy:3128");
        assert_eq!(without_password("me:secret@proxy:1"), "…@proxy:1");
        assert_eq!(without_password("http://proxy:1"), "http://proxy:1");
    }
}
