//! Taking the relay away again.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::connect;
use crate::app::intercept::owner;
use crate::config::Config;
use crate::k8s::install::change::{self, Done};
use crate::k8s::install::site::{Kind, Site};
use crate::k8s::redirect::list::{Intercepted, Scope, list};
use crate::k8s::redirect::sweep::{Last, clear, put_back};
use crate::task::Tasks;

/// What would be deleted.
pub struct Removal {
    site: Site,
    objects: Vec<(&'static Kind, String)>,
    intercepted: Vec<Intercepted>,
    owner: String,
    _tasks: Tasks,
}

/// What was deleted.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// The namespace.
    pub namespace: String,
    /// Services that have their own pods again, by name.
    pub given_back: Vec<String>,
    /// The objects.
    pub objects: Vec<Done>,
}

impl Removal {
    /// Looks for what carries kdev's labels. Changes nothing.
    ///
    /// # Errors
    /// When the cluster cannot be reached, permissions are missing, or, unless by `force`, somebody
    /// intercepts a Service by this relay.
    pub async fn make(config: &Config, force: bool) -> anyhow::Result<Self> {
        let (site, tasks) = connect(config).await?;
        site.permit(change::removing_permissions(&site)).await?;
        let objects = site.installed().await?;
        let scope = Scope::Namespace(site.namespace.clone());
        let intercepted = list(&site.client, &scope).await?;
        let claimed = intercepted.iter().filter(|found| !found.claims.is_empty());
        let claimed: Vec<String> = claimed.map(described).collect();
        if !claimed.is_empty() && !force {
            bail!(
                "without the relay nobody would answer for what is intercepted in namespace {}: {}; \
                 have them end it, or pass --force, which gives these Services their own pods again \
                 and tells the owners",
                site.namespace,
                claimed.join(", ")
            );
        }
        Ok(Self {
            site,
            objects,
            intercepted,
            owner: owner(config),
            _tasks: tasks,
        })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.site.namespace
    }

    /// The objects, each as kind and name.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = (&'static str, &str)> {
        let objects = self.objects.iter();
        objects.map(|(kind, name)| (kind.kind, name.as_str()))
    }

    /// Names of the Services that lead to this relay, which get their own pods again.
    pub fn intercepted(&self) -> impl ExactSizeIterator<Item = &str> {
        self.intercepted.iter().map(|found| found.service.as_str())
    }

    /// Gives intercepted Services back, deletes the objects, and waits until they and the pods are
    /// gone.
    ///
    /// # Errors
    /// When one is refused, or pods are left when `timeout` has passed.
    pub async fn carry_out(
        self,
        timeout: Duration,
        tell: &mut (dyn FnMut(&Done) + Send),
    ) -> anyhow::Result<Removed> {
        let mut objects = Vec::new();
        let mut done = |done: Done| {
            tell(&done);
            objects.push(done);
        };
        let (client, all) = (&self.site.client, |_: &_, _: &_| true);
        let scope = Scope::Namespace(self.site.namespace.clone());
        let by = &self.owner;
        let given_back = put_back(client, &scope, by, &|_| true, &all, &mut |_| {}).await?;
        // While its pods end they pass on who still comes, by what is deleted after them.
        self.site.remove(&self.objects, timeout, &mut done).await?;
        put_back(client, &scope, by, &|_| true, &all, &mut |_| {}).await?;
        let gone = Last::NoRelay;
        clear(client, &scope, &|_| true, &gone, Duration::ZERO).await?;
        Ok(Removed {
            namespace: self.site.namespace.clone(),
            given_back: given_back.into_iter().map(|put| put.service).collect(),
            objects,
        })
    }
}

/// A Service, and who intercepts it.
fn described(found: &Intercepted) -> String {
    let owners: std::collections::BTreeSet<&str> = found
        .claims
        .iter()
        .map(|claim| claim.owner.as_str())
        .collect();
    let owners: Vec<&str> = owners.into_iter().collect();
    format!("{} by {}", found.service, owners.join(" and "))
}
