//! Taking the relay away again.

use std::time::Duration;

use serde::Serialize;

use super::connect;
use crate::config::Config;
use crate::k8s::install::change::{self, Done};
use crate::k8s::install::site::{Kind, Site};
use crate::task::Tasks;

/// What would be deleted.
pub struct Removal {
    site: Site,
    objects: Vec<(&'static Kind, String)>,
    _tasks: Tasks,
}

/// What was deleted.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// The namespace.
    pub namespace: String,
    /// The objects.
    pub objects: Vec<Done>,
}

impl Removal {
    /// Looks for what carries kdev's labels. Changes nothing.
    ///
    /// # Errors
    /// When the cluster cannot be reached or permissions are missing.
    pub async fn make(config: &Config) -> anyhow::Result<Self> {
        let (site, tasks) = connect(config).await?;
        site.permit(change::removing_permissions(&site)).await?;
        let objects = site.installed().await?;
        Ok(Self {
            site,
            objects,
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

    /// Deletes them, and waits until they and the pods are gone.
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
        self.site.remove(&self.objects, timeout, &mut done).await?;
        Ok(Removed {
            namespace: self.site.namespace.clone(),
            objects,
        })
    }
}
