//! `kdev install`, `kdev upgrade`, `kdev uninstall`: the relay in one namespace.

mod binaries;
mod remove;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::Value;

use self::binaries::Provided;
use crate::config::Config;
use crate::k8s::install::change::{self, Action, Done};
use crate::k8s::install::limits;
use crate::k8s::install::manifest::Manifest;
use crate::k8s::install::rollout::Progress;
use crate::k8s::install::settings::{Settings, Source};
use crate::k8s::install::site::{Found, Site};
use crate::k8s::{Client, discovery};
use crate::task::Tasks;

pub use self::remove::{Removal, Removed};

/// What the command line asks for; what is not given stays as an earlier install had it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the program comes from.
    pub source: Option<Source>,
    /// How many pods.
    pub replicas: Option<u16>,
    /// What alone the relay may reach.
    pub allow: Option<Vec<String>>,
    /// What it may not reach.
    pub deny: Option<Vec<String>>,
    /// Whether it also takes tunnels by `pods/proxy`.
    pub pods_proxy: Option<bool>,
    /// Files with the program.
    pub binaries: Vec<PathBuf>,
    /// Goes back to an older version, and takes over what others changed.
    pub force: bool,
    /// Only where it is installed already.
    pub upgrade: bool,
    /// How long the pods may take.
    pub timeout: Duration,
}

/// What goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// An object was seen to.
    Object(&'a Done),
    /// Pods came, or did not.
    Pods(&'a Progress),
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Installed {
    /// The namespace.
    pub namespace: String,
    /// The relay's version.
    pub version: String,
    /// The version that was there before.
    pub was: Option<String>,
    /// How many pods are ready.
    pub ready: u64,
    /// Whether anything was changed.
    pub changed: bool,
    /// What became of each object.
    pub objects: Vec<Done>,
}

/// What is to be done, worked out before anything is changed.
pub struct Plan {
    site: Site,
    found: Found,
    version: String,
    objects: Vec<Value>,
    notes: Vec<String>,
    _tasks: Tasks,
}

impl Plan {
    /// Looks at the namespace and works out what is to be there. Changes nothing.
    ///
    /// # Errors
    /// When the cluster cannot be reached, permissions are missing, the objects are somebody
    /// else's, there is no program to install, or it is an older one than what is there.
    pub async fn make(config: &Config, request: &Request) -> anyhow::Result<Self> {
        let (site, tasks) = connect(config).await?;
        site.permit(change::permissions(&site, request.replicas != Some(1)))
            .await?;
        let found = site.look().await?;
        found.check_owner(&site.namespace)?;
        if request.upgrade && found.deployment.is_none() {
            let namespace = &site.namespace;
            bail!("no relay is installed in namespace {namespace}; `kdev install` does that");
        }
        let mut settings = settings(request, &found)?;
        let own = env!("CARGO_PKG_VERSION");
        let (version, binaries) = match &mut settings.source {
            Source::BaseImage(_) => {
                let Provided { version, binaries } = binaries::find(&request.binaries)?;
                (version, binaries)
            }
            Source::Image(image) => {
                if request.source.is_none() {
                    *image = successor(image, &found, own)?;
                }
                (own.to_owned(), Vec::new())
            }
        };
        if let Some(was) = found.version()
            && !request.force
            && is_older(&version, was)
        {
            bail!(
                "relay {was} is installed in namespace {}, and this would make it the older \
                 {version}; take a newer kdev, or pass --force",
                site.namespace
            );
        }
        let resources = limits::resources(&found.quotas, &found.ranges);
        let manifest = Manifest {
            namespace: site.namespace.clone(),
            settings,
            binaries,
            version: version.clone(),
            assigns_user: found.assigns_user,
            resources: resources.value,
            budgets: found.budgets,
            keys: found.keys(),
        };
        let objects = change::objects(&manifest, &found)?;
        Ok(Self {
            site,
            found,
            version,
            objects,
            notes: resources.notes,
            _tasks: tasks,
        })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.site.namespace
    }

    /// The objects, exactly as they would be sent.
    #[must_use]
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// What the user should know.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Does it, and waits until the pods are ready.
    ///
    /// # Errors
    /// When an object is refused or a pod does not start. What was done stays: the same again
    /// goes on from there.
    pub async fn carry_out(
        self,
        request: &Request,
        tell: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> anyhow::Result<Installed> {
        let mut objects = Vec::new();
        let mut done = |done: Done| {
            tell(Event::Object(&done));
            objects.push(done);
        };
        self.site
            .put(&self.objects, &self.found, request.force, &mut done)
            .await?;
        let mut pods = |progress: &Progress| tell(Event::Pods(progress));
        let ready = self.site.rolled_out(request.timeout, &mut pods).await?;
        let mut done = |done: Done| {
            tell(Event::Object(&done));
            objects.push(done);
        };
        // Not before: until the last old pod is gone, one that is made anew reads them.
        self.site.sweep(&self.objects, &mut done).await?;
        Ok(Installed {
            namespace: self.site.namespace.clone(),
            was: self.found.version().map(str::to_owned),
            version: self.version,
            ready,
            changed: objects.iter().any(|done| done.action != Action::Unchanged),
            objects,
        })
    }
}

async fn connect(config: &Config) -> anyhow::Result<(Site, Tasks)> {
    let tasks = Tasks::new();
    let client = Client::connect_in(config.kube.clone(), config.environment(), &tasks).await?;
    // Anybody may ask for the version: tells a broken way from a missing permission.
    discovery::version(&client).await?;
    let namespace = client.namespace().to_owned();
    Ok((Site { client, namespace }, tasks))
}

/// What is chosen now, over what was chosen before, over defaults.
fn settings(request: &Request, found: &Found) -> anyhow::Result<Settings> {
    let mut settings = found.settings().unwrap_or_default();
    if let Some(source) = &request.source {
        settings.source = source.clone();
    }
    if let Some(replicas) = request.replicas {
        settings.replicas = replicas;
    }
    if let Some(allow) = &request.allow {
        settings.allow.clone_from(allow);
    }
    if let Some(deny) = &request.deny {
        settings.deny.clone_from(deny);
    }
    if let Some(pods_proxy) = request.pods_proxy {
        settings.pods_proxy = pods_proxy;
    }
    if matches!(settings.source, Source::Image(_)) && !request.binaries.is_empty() {
        bail!("--relay-binary is for a --base-image; an --image has the program");
    }
    Ok(settings)
}

/// The image of this version, where the one that was chosen before has the old version as its tag.
fn successor(image: &str, found: &Found, version: &str) -> anyhow::Result<String> {
    let was = found.version().unwrap_or_default();
    if was == version {
        return Ok(image.to_owned());
    }
    let tag = image
        .strip_suffix(was)
        .filter(|rest| rest.ends_with([':', 'v']));
    let rest = tag.with_context(|| {
        format!(
            "the relay was installed with --image {image}, which does not say its version; pass \
             the --image of version {version}"
        )
    })?;
    Ok(format!("{rest}{version}"))
}

/// Whether `version` is older than `other`; what is no version is not.
fn is_older(version: &str, other: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        let core = text.split(['-', '+']).next()?;
        core.split('.').map(|part| part.parse().ok()).collect()
    };
    match (numbers(version), numbers(other)) {
        (Some(version), Some(other)) => version < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_older("0.9.0", "0.10.0"));
        assert!(!is_older("0.10.0", "0.10.0"));
        assert!(!is_older("1.0.0", "0.10.0"));
        assert!(!is_older("unknown", "0.10.0"));
    }
}
