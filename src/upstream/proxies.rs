//! Which proxy a destination goes through, and the proxies that are in use.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::ProxyError;
use super::helper::Helper;
use super::proxy::Proxy;
use super::url::{ProxyUrl, is_loopback};
use super::vars::{Carries, ProxyVars};
use crate::addr::{Host, Target};

/// The proxies of this process: the environment's, the kubeconfig's, and the logins to them.
/// Cloning is shallow.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    vars: ProxyVars,
    helper: Option<Helper>,
    /// One per URL, login included, so that a login is made once.
    used: Mutex<HashMap<ProxyUrl, Arc<Proxy>>>,
    /// Where kdev itself listens.
    own: Mutex<Vec<SocketAddr>>,
}

/// The proxy of a destination.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// Where it was set, for example `HTTPS_PROXY`.
    pub from: &'static str,
}

impl Proxies {
    /// The proxies that `vars` name; `helper` logs in to them.
    #[must_use]
    pub fn new(vars: ProxyVars, helper: Option<Helper>) -> Self {
        Self {
            inner: Arc::new(Inner {
                vars,
                helper,
                ..Inner::default()
            }),
        }
    }

    /// The variables.
    #[must_use]
    pub fn vars(&self) -> &ProxyVars {
        &self.inner.vars
    }

    /// The variables that are set, each with its proxy; none where that is kdev itself.
    #[must_use]
    pub fn used(&self) -> Vec<(&'static str, Result<Option<Chosen>, ProxyError>)> {
        let vars = &self.inner.vars;
        let named = [
            ("HTTPS_PROXY", &vars.https),
            ("HTTP_PROXY", &vars.http),
            ("ALL_PROXY", &vars.all),
        ];
        let set = named.into_iter().filter(|(_, url)| !url.trim().is_empty());
        set.map(|(name, url)| (name, self.named(url, name)))
            .collect()
    }

    /// The program that logs in.
    #[must_use]
    pub fn helper(&self) -> Option<&Helper> {
        self.inner.helper.as_ref()
    }

    /// Says that kdev itself listens at `address`: a variable that leads there is left over from
    /// another time, and is not followed.
    pub fn is_own(&self, address: SocketAddr) {
        let mut own = self.inner.own.lock();
        let own = own.as_mut().unwrap_or_else(|e| e.get_mut());
        own.push(address);
    }

    /// The proxy that the environment has for `target`; none where it goes directly.
    ///
    /// # Errors
    /// When the variable does not name a usable proxy.
    pub fn choose(&self, target: &Target, carries: Carries) -> Result<Option<Chosen>, ProxyError> {
        match self.inner.vars.choose(target, carries) {
            Some((url, from)) => self.named(url, from),
            None => Ok(None),
        }
    }

    /// The proxy at `url`, which stands in `from`; none where that is kdev itself.
    ///
    /// # Errors
    /// When it is not the URL of a usable proxy.
    pub fn named(&self, url: &str, from: &'static str) -> Result<Option<Chosen>, ProxyError> {
        let url: ProxyUrl = url.parse().map_err(|error| ProxyError::Url {
            from: from.to_owned(),
            error,
        })?;
        if self.leads_here(&url.address) {
            tracing::debug!(%url, from, "not followed: it is kdev itself");
            return Ok(None);
        }
        let mut used = self.inner.used.lock();
        let used = used.as_mut().unwrap_or_else(|e| e.get_mut());
        let proxy = used.entry(url.clone());
        let proxy = proxy.or_insert_with(|| Arc::new(Proxy::new(url, self.inner.helper.clone())));
        Ok(Some(Chosen {
            proxy: Arc::clone(proxy),
            from,
        }))
    }

    fn leads_here(&self, address: &Target) -> bool {
        let own = self.inner.own.lock();
        let own = own.unwrap_or_else(PoisonError::into_inner);
        own.iter().any(|own| {
            let same_host = match &address.host {
                Host::Ip(ip) => *ip == own.ip() || own.ip().is_unspecified(),
                Host::Name(_) => false,
            };
            own.port() == address.port
                && (same_host || (is_loopback(&address.host) && own.ip().is_loopback()))
        })
    }
}
