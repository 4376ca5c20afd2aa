//! Which cluster, as which user, in which namespace: read as kubectl reads it.
//!
//! Nothing here talks to a cluster or runs a program. Reading files may block: call [`load`]
//! off the async threads.

mod error;
mod expiry;
mod fingerprint;
mod provider;
mod proxy;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use kube::config::{Config, ExecConfig, KubeConfigOptions, Kubeconfig};

pub use error::KubeconfigError;
pub(super) use expiry::of_token as token_expiry;
pub(crate) use proxy::target as server_target;

use super::oidc;
use crate::addr::{self, Target};
use crate::upstream::{Chosen, Proxies, ProxyVars};

/// What stands in the place of a context's name for a pod's service account.
pub const IN_CLUSTER: &str = "in-cluster";
/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the user asked for on the command line, with kubectl's meanings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeOptions {
    /// `--kubeconfig`: this file and no other.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--namespace`.
    pub namespace: Option<String>,
    /// `--as`.
    pub as_user: Option<String>,
    /// `--as-group`, as often as it was given.
    pub as_groups: Vec<String>,
}

/// What the process's environment says about it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `KUBECONFIG`: a list of files.
    pub kubeconfig: Option<OsString>,
    /// The home directory, for `.kube/config`.
    pub home: Option<PathBuf>,
    /// Whether this process runs in a pod with a service account.
    pub in_cluster: bool,
    /// The proxies of the environment, and the logins to them.
    pub proxies: Proxies,
    /// How long a credential plugin may take; its own limits where this is not set.
    pub login_timeout: Option<Duration>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            kubeconfig: std::env::var_os("KUBECONFIG"),
            home: std::env::home_dir(),
            in_cluster: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
                && std::env::var_os("KUBERNETES_SERVICE_PORT").is_some()
                && Path::new(SERVICE_ACCOUNT).join("token").exists(),
            proxies: Proxies::new(ProxyVars::of_process(), None),
            login_timeout: None,
        }
    }

    /// The files that are read when `--kubeconfig` was not given.
    fn files(&self) -> Vec<PathBuf> {
        let listed: Vec<PathBuf> = self
            .kubeconfig
            .iter()
            .flat_map(std::env::split_paths)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if listed.is_empty() {
            let home = self.home.iter();
            home.map(|home| home.join(".kube").join("config")).collect()
        } else {
            listed
        }
    }
}

/// A cluster and a user, ready to connect.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The context's name; `in-cluster` for a pod's service account.
    pub context: String,
    /// The cluster's name.
    pub cluster: String,
    /// The user's name, with whom it impersonates.
    pub user: String,
    /// The namespace for names without one.
    pub namespace: String,
    /// The API server.
    pub server: Uri,
    /// The files that were read; none for a pod's service account.
    pub files: Vec<PathBuf>,
    /// The credential plugin, which `config` no longer names: kube would run it blocking, thrice.
    pub(super) exec: Option<ExecConfig>,
    /// The login by OpenID Connect, which `config` no longer names.
    pub(super) oidc: Option<oidc::Provider>,
    /// The proxy on the way to `server`.
    pub(super) proxy: Option<Chosen>,
    /// The rest, as kube takes it.
    pub(super) config: Config,
}

impl Loaded {
    /// The proxy on the way to the API server, without its password.
    #[must_use]
    pub fn proxy(&self) -> Option<String> {
        self.proxy.as_ref().map(|p| p.proxy.url().to_string())
    }

    /// That proxy, and where it was set.
    #[must_use]
    pub fn route(&self) -> Option<&Chosen> {
        self.proxy.as_ref()
    }

    /// The API server as a destination; none where its address has no usable host.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        server_target(&self.server).map(|(target, _)| target)
    }

    /// The credential plugin's program.
    #[must_use]
    pub fn plugin(&self) -> Option<&str> {
        self.exec.as_ref()?.command.as_deref()
    }

    /// When the credentials in the kubeconfig end, where they say so themselves: a token that is
    /// a JWT, a client certificate. May read files.
    #[must_use]
    pub fn expires(&self) -> Option<std::time::SystemTime> {
        match &self.oidc {
            Some(provider) => provider.expires(),
            None => expiry::of(&self.config.auth_info),
        }
    }
}

/// Reads what `options` and `environment` mean.
///
/// # Errors
/// When there is no kubeconfig, it cannot be read, or it does not name a usable cluster.
pub fn load(options: &KubeOptions, environment: &Environment) -> Result<Loaded, KubeconfigError> {
    let files = read_files(options, environment)?;
    let nothing = files.merged.contexts.is_empty() && options.context.is_none();
    if nothing && options.kubeconfig.is_none() && environment.in_cluster {
        return in_cluster(options, environment);
    }
    if files.found.is_empty() {
        return Err(KubeconfigError::Missing {
            looked: files.looked,
        });
    }
    from_files(options, environment, files)
}

/// The contexts that `options` and `environment` have to choose from.
///
/// # Errors
/// When a kubeconfig cannot be read.
pub fn contexts(
    options: &KubeOptions,
    environment: &Environment,
) -> Result<Vec<String>, KubeconfigError> {
    let merged = read_files(options, environment)?.merged;
    Ok(merged.contexts.into_iter().map(|c| c.name).collect())
}

/// The files that were looked for and what they say together.
struct Files {
    looked: Vec<PathBuf>,
    found: Vec<PathBuf>,
    merged: Kubeconfig,
}

fn read_files(options: &KubeOptions, environment: &Environment) -> Result<Files, KubeconfigError> {
    let looked = match &options.kubeconfig {
        Some(file) => vec![file.clone()],
        None => environment.files(),
    };
    let mut found = Vec::new();
    let mut merged = Kubeconfig::default();
    for path in &looked {
        refuse_other_encodings(path)?;
        let mut config = match Kubeconfig::read_from(path) {
            Ok(config) => config,
            // As kubectl: what a list or the default names and does not exist is skipped.
            Err(kube::config::KubeconfigError::ReadConfig(e, _))
                if e.kind() == io::ErrorKind::NotFound && options.kubeconfig.is_none() =>
            {
                continue;
            }
            Err(error) => return Err(KubeconfigError::of_file(path, error)),
        };
        // `current-context: ""` is how tools write "none"; it must not win over a later file.
        config.current_context = config.current_context.filter(|name| !name.is_empty());
        merged = merged
            .merge(config)
            .map_err(|error| KubeconfigError::of_file(path, error))?;
        found.push(path.clone());
    }
    Ok(Files {
        looked,
        found,
        merged,
    })
}

/// kube reads UTF-16, which Windows tools write, and panics where such a file is cut in the middle
/// of a character.
fn refuse_other_encodings(path: &Path) -> Result<(), KubeconfigError> {
    // What cannot be read is said by whoever reads it for its contents.
    let Ok(bytes) = std::fs::read(path) else {
        return Ok(());
    };
    let utf16 = matches!(bytes.get(..2), Some([0xff, 0xfe] | [0xfe, 0xff]));
    if utf16 && bytes.len() % 2 == 1 {
        return Err(KubeconfigError::Malformed {
            file: path.to_owned(),
            line: None,
            reason: "it is UTF-16 text that is cut in the middle of a character".to_owned(),
        });
    }
    Ok(())
}

fn from_files(
    options: &KubeOptions,
    environment: &Environment,
    files: Files,
) -> Result<Loaded, KubeconfigError> {
    let merged = files.merged;
    let names = || {
        let contexts = merged.contexts.iter();
        contexts.map(|c| c.name.clone()).collect::<Vec<_>>()
    };
    let name = options
        .context
        .as_ref()
        .or(merged.current_context.as_ref())
        .cloned();
    let Some(name) = name else {
        return Err(KubeconfigError::NoContext {
            files: files.found,
            available: names(),
        });
    };
    let context = merged.contexts.iter().find(|c| c.name == name);
    let Some(context) = context.and_then(|c| c.context.clone()) else {
        return Err(KubeconfigError::UnknownContext {
            name,
            available: names(),
        });
    };
    let user = context.user.clone().filter(|user| !user.is_empty());
    if let Some(user) = &user
        && !merged.auth_infos.iter().any(|u| &u.name == user)
    {
        return Err(KubeconfigError::Dangling {
            context: name,
            kind: "user",
            name: user.clone(),
        });
    }
    let cluster = merged.clusters.iter().find(|c| c.name == context.cluster);
    let Some(cluster) = cluster.and_then(|c| c.cluster.clone()) else {
        return Err(KubeconfigError::Dangling {
            context: name,
            kind: "cluster",
            name: context.cluster,
        });
    };
    let mut merged = merged;
    for named in &mut merged.clusters {
        if let Some(cluster) = &mut named.cluster {
            // kube would read the environment's proxy here and match NO_PROXY against the proxy.
            cluster.proxy_url = None;
            cluster.server = cluster.server.take().map(with_scheme);
        }
    }
    let chosen = KubeConfigOptions {
        context: Some(name.clone()),
        ..Default::default()
    };
    let config = futures_util::future::FutureExt::now_or_never(Config::from_custom_kubeconfig(
        merged, &chosen,
    ))
    .ok_or_else(|| KubeconfigError::Other("the kubeconfig could not be read at once".to_owned()))?
    .map_err(|error| KubeconfigError::of_context(&name, error))?;
    let proxy_url = cluster.proxy_url.as_deref();
    let proxy = proxy::choose(proxy_url, &environment.proxies, &config.cluster_url)?;
    let mut config = config;
    let auth = &mut config.auth_info;
    let oidc = provider::choose(auth, &name, user.as_deref(), &files.found)?;
    finish(Parts {
        oidc,
        options,
        context: name,
        files: files.found,
        cluster: context.cluster,
        user: user.unwrap_or_else(|| "anonymous".to_owned()),
        config,
        proxy,
    })
}

fn in_cluster(options: &KubeOptions, environment: &Environment) -> Result<Loaded, KubeconfigError> {
    let config = Config::incluster()
        .map_err(|error| KubeconfigError::Other(format!("the pod's service account: {error}")))?;
    let proxy = proxy::choose(None, &environment.proxies, &config.cluster_url)?;
    finish(Parts {
        oidc: None,
        options,
        context: IN_CLUSTER.to_owned(),
        files: Vec::new(),
        cluster: "in-cluster".to_owned(),
        user: "the pod's service account".to_owned(),
        config,
        proxy,
    })
}

struct Parts<'a> {
    oidc: Option<oidc::Provider>,
    options: &'a KubeOptions,
    context: String,
    files: Vec<PathBuf>,
    cluster: String,
    user: String,
    config: Config,
    proxy: Option<Chosen>,
}

/// Applies the flags and takes over what kube must not decide.
fn finish(parts: Parts<'_>) -> Result<Loaded, KubeconfigError> {
    let Parts {
        options,
        mut config,
        mut user,
        ..
    } = parts;
    // `-n "$UNSET"` means what it means to kubectl: the context's own.
    if let Some(namespace) = options.namespace.as_ref().filter(|name| !name.is_empty()) {
        config.default_namespace.clone_from(namespace);
    }
    if config.default_namespace.is_empty() {
        "default".clone_into(&mut config.default_namespace);
    }
    let context = &parts.context;
    addr::namespace(&config.default_namespace)
        .map_err(|error| KubeconfigError::Other(format!("{error} (context {context:?})")))?;
    if let Some(other) = &options.as_user {
        config.auth_info.impersonate = Some(other.clone());
    }
    if !options.as_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(options.as_groups.clone());
    }
    if let Some(other) = &config.auth_info.impersonate {
        user = format!("{user} as {other}");
    }
    config.proxy_url = None;
    let auth = &mut config.auth_info;
    let exec = auth.exec.take();
    let exec = exec.filter(|_| !provider::is_written(auth));
    Ok(Loaded {
        context: parts.context,
        cluster: parts.cluster,
        user,
        namespace: config.default_namespace.clone(),
        server: config.cluster_url.clone(),
        files: parts.files,
        exec,
        oidc: parts.oidc,
        proxy: parts.proxy,
        config,
    })
}

/// `host:port` without a scheme is HTTP, as in client-go.
fn with_scheme(server: String) -> String {
    if server.contains("://") {
        server
    } else {
        format!("http://{server}")
    }
}
