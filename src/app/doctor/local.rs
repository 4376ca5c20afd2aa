//! What is on this machine: proxies in the environment, other sessions, the runtime folder.

use super::check::Check;
use super::proxies;
use crate::addr::ClusterDomain;
use crate::app::registry::{self, Found};
use crate::k8s::kubeconfig::Loaded;
use crate::upstream::Proxies;

const CAPTURE: &str = "local.capture";
const CAPTURE_TITLE: &str = "connections of a command that go through kdev";

pub(super) async fn checks(
    loaded: Option<&Loaded>,
    proxies: &Proxies,
    domain: &ClusterDomain,
) -> Vec<Check> {
    let folder = match registry::try_folder() {
        Ok(path) => Check::ok(
            "local.runtime-folder",
            "runtime folder",
            format!("{} takes sockets", path.display()),
        ),
        Err(error) => match registry::check_folder() {
            // Nothing starts then.
            Err(error) => {
                let text = error.to_string();
                let (what, fix) = text.split_once("; ").unwrap_or((&text, ""));
                let check = Check::fail("local.runtime-folder", "runtime folder", what);
                check.fix(fix)
            }
            Ok(()) => Check::warn(
                "local.runtime-folder",
                "runtime folder",
                format!("{error}; `kdev status` will not see sessions"),
            )
            .fix("set XDG_RUNTIME_DIR to a folder that only you may enter"),
        },
    };
    vec![
        proxies::check(loaded, proxies, domain).await,
        folder,
        capture().await,
        sessions().await,
    ]
}

/// Whether all connections of a command can come to kdev.
#[cfg(target_os = "linux")]
async fn capture() -> Check {
    use crate::capture::held;
    use crate::run::capture::{Network, advice};

    let made = tokio::task::spawn_blocking(|| {
        Network::make(false).map_err(|failure| (failure, held::try_out()))
    });
    match made.await {
        Ok(Ok(_)) => Check::ok(CAPTURE, CAPTURE_TITLE, "all of them, from any program"),
        Ok(Err((failure, held))) => {
            let detail = match held {
                Ok(()) => format!(
                    "kdev looks at each connect, since there is {failure}: datagrams without a connect \
                     go past it, so static programs of musl find no names; `--publish A:B`, sudo and \
                     other setuid programs do not work"
                ),
                Err(error) => format!(
                    "only those of programs that read proxy variables: {failure}, and connects cannot \
                     wait for kdev ({error})"
                ),
            };
            let check = Check::warn(CAPTURE, CAPTURE_TITLE, detail);
            check.fix(advice(&failure).unwrap_or_default())
        }
        Err(error) => Check::skipped(CAPTURE, CAPTURE_TITLE, error.to_string()),
    }
}

#[cfg(not(target_os = "linux"))]
async fn capture() -> Check {
    Check::skipped(
        CAPTURE,
        CAPTURE_TITLE,
        "this needs Linux; programs that read proxy variables reach the cluster",
    )
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
