//! The session of a running `kdev connect`, used by other commands: they start at once, ask the
//! API server for nothing, and share its connections.
//!
//! Two commands mean the same session when their kubeconfig gives the same cluster, user, way and
//! namespace, and all settings that matter to a program are equal. Only sessions of this user are
//! seen (the registry's folder is private), and their proxy serves this user alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::registry::{self, Lease, Lends, Report};
use crate::config::Config;
use crate::k8s::kubeconfig;
use crate::run::environment::{self, ProxyAddress, Settings, Variables};
use crate::upstream::BEFORE;

/// How long a proxy of this machine may take to answer before it counts as dead.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);
/// What the proxy's own page begins with.
const ALIVE: &[u8] = b"HTTP/1.1 200";
/// The context of a pod's own service account: no kubeconfig has it.
const IN_CLUSTER: &str = "in-cluster";
/// What `JAVA_TOOL_OPTIONS` has in it that kdev extended.
const OWN_JAVA_OPTION: &str = "-DsocksProxyHost=";

/// An environment's names and values.
pub type Inherited = BTreeMap<String, String>;

/// What is equal for commands that mean the same session; `None` where there is no kubeconfig to
/// tell from. Reads files, and sends nothing.
pub(super) async fn key(config: &Config) -> Option<String> {
    let (options, environment) = (config.kube.clone(), config.environment());
    let read = move || kubeconfig::load(&options, &environment);
    let loaded = tokio::task::spawn_blocking(read).await.ok()?.ok()?;
    Some(format!(
        "{} {:016x} {:016x}",
        env!("CARGO_PKG_VERSION"),
        loaded.fingerprint(),
        config.behaviour()
    ))
}

/// The session of a running `kdev connect` that means the same as `config`, and whose proxy is
/// alive. What keeps one from being found is no error: a command has its own session then.
pub async fn borrow(config: &Config) -> Option<(Lease, Lends)> {
    let mut lenders = registry::lenders().await.ok()?;
    if lenders.is_empty() {
        return None;
    }
    let key = key(config).await?;
    lenders.retain(|lease| lends(&lease.report, &key, config).is_some());
    for lease in lenders {
        let Some(lends) = lease.report.lends.clone() else {
            continue;
        };
        if is_alive(lends.proxy).await {
            return Some((lease, lends));
        }
    }
    None
}

/// The session of the only `kdev connect` that runs, whatever its settings.
pub(super) async fn only() -> Option<(Lease, Lends)> {
    let [lease] = <[Lease; 1]>::try_from(registry::lenders().await.ok()?).ok()?;
    let lends = lease.report.lends.clone()?;
    is_alive(lends.proxy).await.then_some((lease, lends))
}

fn lends<'a>(report: &'a Report, key: &str, config: &Config) -> Option<&'a Lends> {
    let lends = report.lends.as_ref().filter(|lends| lends.key == key)?;
    // Whoever asks for an address gets it or nothing.
    let listen = config.proxy_listen.is_none_or(|at| at == lends.proxy);
    listen.then_some(lends)
}

/// Asks the proxy for its PAC file. That this works from here also says that both are in the same
/// network, which processes of one machine need not be.
async fn is_alive(proxy: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        let request =
            format!("GET /proxy.pac HTTP/1.1\r\nHost: {proxy}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut start = [0; ALIVE.len()];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start == ALIVE)
    };
    matches!(tokio::time::timeout(PROXY_TIMEOUT, ask).await, Ok(Ok(true)))
}

/// What the variables of a program are made from that uses the session of `report`.
pub(super) fn settings(config: &Config, report: &Report, lends: &Lends) -> Settings {
    let proxy = ProxyAddress::new(lends.proxy.ip().to_string(), lends.proxy.port());
    Settings {
        proxy,
        direct: Vec::new(),
        domain: lends.domain.clone(),
        context: Some(report.context.clone()),
        namespace: Some(report.namespace.clone()),
        all_proxy: config.all_proxy,
    }
}

/// The variables for a program of this laptop whose environment is `inherited`, with those by
/// which a kdev inside means the same cluster and user, and those that it had before.
pub(super) fn variables(config: &Config, settings: &Settings, inherited: &Inherited) -> Variables {
    let before = before(inherited).ok().flatten();
    let mut variables = environment::variables(settings, |name| {
        let value = inherited.get(name).cloned();
        let ours = value.as_ref().is_some_and(|v| v.contains(OWN_JAVA_OPTION));
        match &before {
            // Else kdev's options would come again behind kdev's options.
            Some(before) if ours => before.get(name).cloned(),
            _ => value,
        }
    });
    for_kdev_inside(config, &mut variables.set);
    let kept: Inherited = match before {
        Some(before) => before,
        None => {
            let names: BTreeSet<&str> = variables.set.iter().map(|(n, _)| n.as_str()).collect();
            let all = inherited.iter();
            all.filter(|(name, _)| names.contains(name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        }
    };
    // A map of texts can always be written down.
    let kept = serde_json::to_string(&kept).unwrap_or_default();
    variables.set.push((BEFORE.to_owned(), kept));
    variables
}

/// What an environment was before kdev changed it first; `None` where it did not.
///
/// # Errors
/// When what was kept of it is broken.
pub(super) fn before(inherited: &Inherited) -> anyhow::Result<Option<Inherited>> {
    let Some(text) = inherited.get(BEFORE).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let kept: Inherited = serde_json::from_str(text).with_context(|| {
        format!("${BEFORE}, where kdev keeps what it replaced, is broken; unset it")
    })?;
    Ok(Some(kept))
}

/// The environment of this process, but for what is no text.
#[must_use]
pub fn inherited() -> Inherited {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn for_kdev_inside(config: &Config, set: &mut Vec<(String, String)>) {
    set.retain(|(name, value)| !(name == "KDEV_CONTEXT" && value == IN_CLUSTER));
    let kube = &config.kube;
    let kubeconfig = kube.kubeconfig.as_deref().map(std::path::absolute);
    if let Some(Ok(path)) = kubeconfig
        && let Ok(path) = path.into_os_string().into_string()
    {
        set.push(("KDEV_KUBECONFIG".to_owned(), path));
    }
    if let Some(user) = &kube.as_user {
        set.push(("KDEV_AS".to_owned(), user.clone()));
    }
    if !kube.as_groups.is_empty() {
        set.push(("KDEV_AS_GROUP".to_owned(), kube.as_groups.join(",")));
    }
}
