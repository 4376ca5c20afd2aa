//! One set of credentials, and when it is time for the next.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::Config;

use super::error::{ClientError, classify};
use super::stack::{self, Stack};
use crate::k8s::exec::{self, Credential};
use crate::k8s::kubeconfig::{self, Environment, KubeOptions, KubeconfigError, Loaded};
use crate::k8s::oidc;

/// Credentials are renewed when less than this is left of them, or a tenth of their life.
const RENEW_AHEAD: Duration = Duration::from_secs(60);
/// A tenth of a working day would renew too early for plugins that hand out what they keep.
const RENEW_AHEAD_MAX: Duration = Duration::from_secs(300);
/// Credentials with less left than this are not worth a request: it may arrive too late.
const SPENT: Duration = Duration::from_secs(2);

/// One set of credentials with its clients.
pub(super) struct Generation {
    pub(super) id: u64,
    pub(super) stack: Stack,
    born: SystemTime,
    expires: Option<SystemTime>,
}

/// How a set of credentials is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Nothing to do.
    Fresh,
    /// Good, but the next set should be got now.
    Ageing,
    /// Not good any more.
    Spent,
}

impl Generation {
    pub(super) fn freshness(&self) -> Freshness {
        freshness(self.born, self.expires, SystemTime::now())
    }
}

fn freshness(born: SystemTime, expires: Option<SystemTime>, now: SystemTime) -> Freshness {
    let Some(expires) = expires else {
        return Freshness::Fresh;
    };
    let life = expires.duration_since(born).unwrap_or_default();
    let left = expires.duration_since(now).unwrap_or_default();
    let ahead = (life / 10)
        .clamp(RENEW_AHEAD, RENEW_AHEAD_MAX)
        .min(life / 2);
    if left <= SPENT.min(life / 4) {
        Freshness::Spent
    } else if left <= ahead {
        Freshness::Ageing
    } else {
        Freshness::Fresh
    }
}

/// Reads the kubeconfig off the async threads.
pub(super) async fn load(
    options: &KubeOptions,
    environment: &Environment,
) -> Result<Loaded, ClientError> {
    let (options, environment) = (options.clone(), environment.clone());
    blocking(move || kubeconfig::load(&options, &environment))
        .await?
        .map_err(Into::into)
}

/// Gets credentials and builds the clients that carry them.
pub(super) async fn build(
    loaded: Loaded,
    id: u64,
    may_ask: bool,
    environment: &Environment,
    logins: &oidc::Session,
) -> Result<Generation, ClientError> {
    let mut config = loaded.config;
    // No timers on streams that are silent for good reasons; retries are the callers' business.
    config.read_timeout = None;
    config.write_timeout = None;
    config.default_retry = false;
    let mut expires = None;
    if let Some(plugin) = &loaded.exec {
        let credential = exec::run(plugin, may_ask, environment.login_timeout).await?;
        expires = credential.expires;
        carry(&mut config, credential);
    }
    if let Some(provider) = &loaded.oidc {
        let credential = logins.credential(provider, &environment.proxies).await?;
        expires = credential.expires;
        carry(&mut config, credential);
    }
    let (context, server) = (loaded.context, loaded.server.to_string());
    let proxy = loaded.proxy;
    let stack = blocking(move || stack::build(&config, proxy.as_ref().map(|chosen| &chosen.proxy)))
        .await?
        .map_err(|error| match error {
            kube::Error::InferKubeconfig(e) => KubeconfigError::of_context(&context, e).into(),
            error => classify(&error, &context, &server),
        })?;
    Ok(Generation {
        id,
        stack,
        born: SystemTime::now(),
        expires,
    })
}

/// Puts a credential where kube expects one from the kubeconfig.
fn carry(config: &mut Config, credential: Credential) {
    let auth = &mut config.auth_info;
    if let Some(token) = credential.token {
        auth.token = Some(token.into());
    }
    if let Some((certificate, key)) = credential.identity {
        auth.client_certificate_data = Some(BASE64_STANDARD.encode(certificate));
        auth.client_key_data = Some(BASE64_STANDARD.encode(key).into());
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ClientError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| KubeconfigError::Other(format!("reading the credentials failed: {e}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_ahead_of_time_but_not_all_the_time() {
        let born = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |life: u64, age: u64| {
            let s = Duration::from_secs;
            freshness(born, Some(born + s(life)), born + s(age))
        };
        assert_eq!(freshness(born, None, born), Freshness::Fresh);
        assert_eq!(at(900, 0), Freshness::Fresh);
        assert_eq!(at(900, 800), Freshness::Fresh, "100 s of 15 min are left");
        assert_eq!(at(900, 815), Freshness::Ageing);
        assert_eq!(at(900, 899), Freshness::Spent);
        assert_eq!(at(900, 2000), Freshness::Spent);
        assert_eq!(at(43_200, 42_800), Freshness::Fresh);
        assert_eq!(at(43_200, 42_900), Freshness::Ageing);
        assert_eq!(at(20, 5), Freshness::Fresh, "half of a short life is used");
        assert_eq!(at(20, 11), Freshness::Ageing);
    }
}
