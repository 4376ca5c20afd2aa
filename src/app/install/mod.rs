//! `kdev install`, `kdev upgrade`, `kdev uninstall`: the relay in one namespace.

mod after;
pub(in crate::app) mod binaries;
mod build;
mod foresee;
mod remove;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::Value;

use self::binaries::Provided;
use crate::app::signals::Ending;
use crate::config::Config;
use crate::k8s::install::binary::Binary;
use crate::k8s::install::change::{self, Action, Done, Put};
use crate::k8s::install::manifest::Manifest;
use crate::k8s::install::marks;
use crate::k8s::install::netpolicy::{Choice, POLICIES};
use crate::k8s::install::rollout::Progress;
use crate::k8s::install::room::{self, Needs};
use crate::k8s::install::settings::{Settings, Source};
use crate::k8s::install::site::{Found, InstallError, Site};
use crate::k8s::install::trial::{Refusal, advice, told};
use crate::k8s::install::undo::Made;
use crate::k8s::install::{limits, shape};
use crate::k8s::netpolicy::advice::let_callers_in;
use crate::k8s::{Client, discovery};
use crate::task::Tasks;

pub use self::foresee::{Foreseen, foresee};
pub use self::remove::{Removal, Removed};

/// What the command line asks for; what is not given stays as an earlier install had it.
#[derive(Clone, Debug, Default)]
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
    /// Whether a NetworkPolicy lets callers of intercepted Services in.
    pub network_policy: Option<Choice>,
    /// What policies of the cluster ask for.
    pub shape: shape::Asked,
    /// Files with the program.
    pub binaries: Vec<PathBuf>,
    /// Goes back to an older version, takes over what others changed, and goes on where the dry run
    /// of a pod is refused.
    pub force: bool,
    /// Leaves what was made where a later step fails.
    pub keep: bool,
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
    /// Something that the user should know.
    Note(String),
}

/// How it ended, where nothing failed.
#[derive(Debug)]
pub enum Outcome {
    /// All is there.
    Installed(Installed),
    /// This signal came.
    Interrupted(u8),
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
    priority_class: String,
    notes: Vec<String>,
    _tasks: Tasks,
}

impl Plan {
    /// Looks at the namespace and works out what is to be there. Changes nothing; `say` gets what
    /// takes long.
    ///
    /// # Errors
    /// When the cluster cannot be reached, permissions are missing, the objects are somebody
    /// else's, there is no program to install, or it is an older one than what is there.
    pub async fn make(
        config: &Config,
        request: &Request,
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
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
                let Provided { version, binaries } = binaries::find(&request.binaries, say).await?;
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
        Self::of((site, tasks), found, settings, version, binaries).await
    }

    /// The plan for what was chosen, in a namespace that was looked at.
    async fn of(
        (site, tasks): (Site, Tasks),
        found: Found,
        settings: Settings,
        version: String,
        binaries: Vec<Binary>,
    ) -> anyhow::Result<Self> {
        if let Some(why) = settings.shape.contradiction() {
            bail!("{why}");
        }
        let resources = limits::resources(&found.quotas, &found.ranges, &settings.shape);
        let priority_class = settings.shape.priority_class.clone();
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
        if let Some(service) = found.taken_in(&manifest) {
            bail!(
                "with these labels Service {service} would select the relay's pods and send its \
                 callers there; choose other values"
            );
        }
        let mut objects = change::objects(&manifest, &found)?;
        let mut notes = resources.notes;
        let is_policy = |object: &Value| object["kind"] == POLICIES.kind;
        if objects.iter().any(is_policy) {
            let verbs = ["create", "patch"];
            let verbs = verbs.map(|verb| POLICIES.permission(verb, &site.namespace));
            match site.permit(verbs.into()).await {
                Err(error @ InstallError::Denied { .. })
                    if manifest.settings.network_policy == Choice::Auto =>
                {
                    objects.retain(|object| !is_policy(object));
                    notes.push(format!(
                        "{error}; without it {}",
                        let_callers_in(&site.namespace)
                    ));
                }
                permitted => permitted?,
            }
        }
        site.permit(marks::marking_permissions(&site, &objects, &found))
            .await?;
        Ok(Self {
            site,
            found,
            version,
            objects,
            priority_class,
            notes,
            _tasks: tasks,
        })
    }

    /// Asks the API server for all of it, and for a pod, without any of it being done. Gives what
    /// the user should know.
    ///
    /// # Errors
    /// What would be refused, and the flags that comply.
    pub async fn rehearse(&self, request: &Request) -> anyhow::Result<Vec<String>> {
        let (found, force) = (&self.found, request.force);
        let trial = self.site.rehearse(&self.objects, found, force).await?;
        let mut notes = Vec::new();
        let mut refusals = trial.objects;
        match trial.pod_refused {
            Some(pod) if force => notes.push(format!(
                "the dry run of a pod was refused, and --force goes on:{}",
                told(&[pod])
            )),
            pod => refusals.extend(pod),
        }
        let needs = Needs {
            objects: found.new_among(&self.objects).collect(),
            pods: found.more_pods(trial.deployment.as_ref()),
            pod: trial.pod.as_ref(),
            priority_class: &self.priority_class,
        };
        let short = room::shortages(&found.quotas, &needs);
        // What one object alone exceeds was said by the API server.
        let short = short.into_iter().filter(|short: &Refusal| {
            let said = |refusal: &Refusal| short.what.contains(&refusal.what);
            !refusals.iter().any(said)
        });
        let short: Vec<Refusal> = short.collect();
        let of_quota = |refusal: &Refusal| refusal.message.contains("exceeded quota");
        let all: Vec<Refusal> = refusals.into_iter().chain(short).collect();
        if all.is_empty() {
            return Ok(notes);
        }
        let fix = match all.iter().all(of_quota) {
            true => "ask for a larger quota, pass --replicas 1, or choose another namespace \
                     (an --image needs no ConfigMaps)"
                .to_owned(),
            false => advice(&all),
        };
        let what = told(&all);
        Err(InstallError::Foreseen { what, fix }.into())
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

    /// Does it, and waits until the pods are ready. Where a step fails, what this run has made is
    /// taken back, or told to stay.
    ///
    /// # Errors
    /// When an object is refused or a pod does not start.
    pub async fn carry_out(
        self,
        request: &Request,
        tell: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> anyhow::Result<Outcome> {
        let mut ending = Ending::listen()?;
        let mut done = Progressed::default();
        let ended = tokio::select! {
            ended = self.attempt(request, &mut done, tell) => ended,
            number = ending.asked() => {
                self.say_what_stays("it was broken off", &done, tell);
                return Ok(Outcome::Interrupted(number));
            }
        };
        match ended {
            Ok(ready) => Ok(Outcome::Installed(Installed {
                namespace: self.site.namespace.clone(),
                was: self.found.version().map(str::to_owned),
                version: self.version,
                ready,
                changed: done.all.iter().any(|done| done.action != Action::Unchanged),
                objects: done.all,
            })),
            Err(error) => {
                // What failed was not made.
                done.unanswered = None;
                self.after(&error, &done, request, tell).await;
                Err(error.into())
            }
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        so_far: &mut Progressed,
        tell: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<u64, InstallError> {
        let Progressed {
            all,
            made,
            unanswered,
        } = so_far;
        let before = self.site.before().await;
        let mut told = |put: Put| match put {
            Put::Done(done) => {
                tell(Event::Object(&done));
                all.push(done);
            }
            Put::Waiting(note) => tell(Event::Note(note)),
        };
        let (objects, found) = (&self.objects, &self.found);
        let put = self
            .site
            .put(objects, found, request.force, made, unanswered, &mut told);
        let deployment = put.await?;
        let was = self.found.deployment.as_ref();
        let before = self.site.renewed(before, was, &deployment).await?;
        let mut pods = |progress: &Progress| tell(Event::Pods(progress));
        let limit = request.timeout;
        let ready = self.site.rolled_out(limit, &before, &mut pods).await?;
        let mut done = |done: Done| {
            tell(Event::Object(&done));
            all.push(done);
        };
        // Not before: until the last old pod is gone, one that is made anew reads them.
        self.site.sweep(&self.objects, &mut done).await?;
        Ok(ready)
    }
}

/// How far it came.
#[derive(Default)]
struct Progressed {
    /// What became of each object.
    all: Vec<Done>,
    /// Those that are new.
    made: Vec<Made>,
    /// Kind and name of one that was sent and not answered: it may be there.
    unanswered: Option<String>,
}

async fn connect(config: &Config) -> anyhow::Result<(Site, Tasks)> {
    let tasks = Tasks::new();
    let client = Client::connect_in(config.kube.clone(), config.environment(), &tasks).await?;
    // Tells a broken way from a missing permission.
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
    if let Some(network_policy) = request.network_policy {
        settings.network_policy = network_policy;
    }
    request.shape.over(&mut settings.shape);
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
