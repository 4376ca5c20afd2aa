//! Asks the API server about one name, where the snapshot does not cover it: at the start, in
//! namespaces that nobody spoke of yet, and where the user may not watch or list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::feed::escaped;
use super::lookup::{self, Found};
use super::members::{self, Members};
use super::name::{Query, What};
use super::object::{Page, RawPod, RawService};
use super::records;
use super::shared::Shared;
use super::store::{Owner, Store};
use crate::addr::{ClusterName, Namespaced};
use crate::dial::{DialError, Resolution, Wanted};
use crate::dns::{self, Subject};
use crate::k8s::access;
use crate::k8s::client::ClientError;

/// How long a question may take: longer than any healthy API server, shorter than an app's own
/// connect timeout.
pub(super) const LEARN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request for it waits in addition where the API server asks for patience: longer than its
/// busy moments, and with the dial itself as long as programs wait for a connection.
pub(super) const LEARN_PATIENCE: Duration = Duration::from_secs(15);
/// How long an answer is good where the user may not watch. A pod that went away is noticed by
/// the dial that fails.
const KNOWN_TTL: Duration = Duration::from_secs(3);
/// How long "no such name" is good.
const ABSENT_TTL: Duration = Duration::from_secs(5);
/// How long a failure is good: just enough to answer a burst of dials with one question.
const FAILED_TTL: Duration = Duration::from_secs(1);

/// What is known of one thing that a destination may ask for.
pub(super) enum Answer {
    /// It is there, and this is what it means.
    Is(Resolution),
    /// It is not there.
    Absent,
    /// Only the API server knows.
    Unknown,
}

/// What was learned about one thing.
pub(super) struct Learned {
    store: Store,
    members: Option<Result<Members, DialError>>,
    outcome: Outcome,
    at: Instant,
}

enum Outcome {
    Known,
    /// It is not there, or could not be asked for, and most likely is none of the cluster's.
    Absent(Option<DialError>),
    Failed(DialError),
}

impl Learned {
    pub(super) fn is_good(&self) -> bool {
        let ttl = match self.outcome {
            Outcome::Known => KNOWN_TTL,
            Outcome::Absent(_) => ABSENT_TTL,
            Outcome::Failed(_) => FAILED_TTL,
        };
        self.at.elapsed() < ttl
    }

    /// What is `wanted` by it.
    pub(super) fn answer(&self, query: &Query, wanted: Wanted<'_>) -> Answer {
        match &self.outcome {
            Outcome::Failed(error) => Answer::Is(lookup::unseen(&self.store, query, wanted, error)),
            Outcome::Absent(_) => Answer::Absent,
            Outcome::Known => match &self.members {
                Some(Ok(members)) => members.answer(&self.store, query, wanted),
                Some(Err(error)) => Answer::Is(lookup::unseen(&self.store, query, wanted, error)),
                None => match lookup::find(&self.store, query, wanted) {
                    Found::Is(resolution) => Answer::Is(resolution),
                    Found::Absent => Answer::Absent,
                    Found::NoSelector => Answer::Unknown,
                },
            },
        }
    }

    /// Why it could not be asked for, where that was taken for "not there".
    pub(super) fn dropped(&self) -> Option<&DialError> {
        match &self.outcome {
            Outcome::Absent(error) => error.as_ref(),
            Outcome::Known | Outcome::Failed(_) => None,
        }
    }

    /// What was seen, and the endpoints where pods may not be listed.
    pub(super) fn seen(&self) -> (&Store, Option<&Members>) {
        let members = self.members.as_ref().and_then(|m| m.as_ref().ok());
        (&self.store, members)
    }

    /// The number of a Service's port by its name.
    pub(super) fn named_port(&self, service: &Namespaced, port: &str) -> Option<u16> {
        let service = self.store.service(service)?;
        let mut ports = service.ports.iter();
        ports.find(|p| &*p.name == port).map(|p| p.port)
    }

    /// What was learned of `subject`, for DNS.
    pub(super) fn records(&self, subject: &Subject) -> dns::Found {
        match (&self.outcome, &self.members) {
            (Outcome::Failed(error), _) => dns::Found::Failed(error.to_string()),
            (Outcome::Absent(_), _) => dns::Found::Absent,
            (Outcome::Known, Some(Err(error))) => records::of(&self.store, None, subject)
                .unwrap_or_else(|| dns::Found::Failed(error.to_string())),
            (Outcome::Known, Some(Ok(members))) => {
                records::of(&self.store, Some(&members.named), subject)
                    .unwrap_or(dns::Found::Absent)
            }
            (Outcome::Known, None) => {
                records::of(&self.store, None, subject).unwrap_or(dns::Found::Absent)
            }
        }
    }

    fn new(outcome: Outcome) -> Self {
        Self {
            store: Store::default(),
            members: None,
            outcome,
            at: Instant::now(),
        }
    }
}

/// Asks.
pub(super) async fn ask(shared: &Arc<Shared>, query: &Query) -> Learned {
    let mut learned = Learned::new(Outcome::Known);
    let asking = async {
        match &query.what {
            What::Name(ClusterName::Service(name) | ClusterName::Srv { service: name, .. }) => {
                service(shared, name, &mut learned).await
            }
            What::Name(ClusterName::Endpoint { service, host }) => {
                endpoint(shared, service, host, &mut learned).await
            }
            What::Name(ClusterName::PodIp { namespace, ip }) => {
                address(shared, namespace, *ip, &mut learned).await
            }
            What::Ip(ip) => {
                let namespace = shared.client.namespace();
                address(shared, namespace, *ip, &mut learned).await
            }
        }
    };
    // Longer than one request's patience, whose last try may still succeed.
    let client = shared.client.patient_for(LEARN_PATIENCE + LEARN_TIMEOUT);
    let result = match client.within(LEARN_TIMEOUT, asking).await {
        Ok(result) => result,
        Err(late) => Err(late.into()),
    };
    learned.outcome = match result {
        Ok(true) => Outcome::Known,
        Ok(false) => Outcome::Absent(None),
        Err(error) if is_ours(shared, query) => Outcome::Failed(error),
        // `github.com` may well be a Service in namespace `com`, but not one that matters here.
        Err(error) => Outcome::Absent(Some(error)),
    };
    learned.at = Instant::now();
    learned
}

/// Whether a name that cannot be asked about is the cluster's all the same.
fn is_ours(shared: &Arc<Shared>, query: &Query) -> bool {
    match &query.what {
        _ if query.certain => true,
        What::Name(ClusterName::Service(name)) => {
            name.namespace == shared.client.namespace() || shared.knows(&name.namespace)
        }
        // `github.com` could be one of a headless Service `com` of the context's namespace too.
        What::Name(_) | What::Ip(_) => false,
    }
}

async fn service(
    shared: &Arc<Shared>,
    name: &Namespaced,
    learned: &mut Learned,
) -> Result<bool, DialError> {
    let base = format!("/api/v1/namespaces/{}/services", name.namespace);
    let got: Result<RawService, _> = shared.asking.get(&format!("{base}/{}", name.name)).await;
    let raw = match got {
        Ok(raw) => raw,
        Err(error) if error.code() == Some(404) => return Ok(false),
        Err(error) if error.code() == Some(403) => {
            // Who may list but not get is as well informed.
            let list = format!("{base}?fieldSelector=metadata.name%3D{}", name.name);
            match shared.asking.get::<Page<RawService>>(&list).await {
                Ok(mut page) => match page.items.pop() {
                    Some(raw) => raw,
                    None => return Ok(false),
                },
                Err(_) => return Err(denied(error, "get", "services", &name.namespace)),
            }
        }
        Err(error) => return Err(error.into()),
    };
    shared.watch_namespace(&name.namespace);
    learned.store.apply_service(&raw);
    pods_of(shared, &raw, learned).await?;
    Ok(true)
}

/// Learns which pods a Service means: by its selector, else from its EndpointSlices.
async fn pods_of(
    shared: &Arc<Shared>,
    raw: &RawService,
    learned: &mut Learned,
) -> Result<(), DialError> {
    let name = Namespaced::new(&raw.metadata.namespace, &raw.metadata.name);
    if raw.spec.kind == "ExternalName" {
        return Ok(());
    }
    if raw.spec.selector.is_empty() {
        learned.members = Some(members::ask(shared, &name).await);
        return Ok(());
    }
    let terms = raw.spec.selector.iter().map(|(k, v)| format!("{k}={v}"));
    let terms = escaped(&terms.collect::<Vec<_>>().join(","));
    let path = format!(
        "/api/v1/namespaces/{}/pods?labelSelector={terms}",
        name.namespace
    );
    match shared.asking.get::<Page<RawPod>>(&path).await {
        Ok(page) => {
            for pod in &page.items {
                learned.store.apply_pod(pod);
            }
            Ok(())
        }
        Err(error) if error.code() == Some(403) => {
            // EndpointSlices name the pods too; what is missing first is what the user is told.
            let members = members::ask(shared, &name).await;
            let missing = denied(error, "list", "pods", &name.namespace);
            learned.members = Some(members.map_err(|_| missing));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// One endpoint of a Service, which is named like its pod more often than not.
async fn endpoint(
    shared: &Arc<Shared>,
    name: &Namespaced,
    host: &str,
    learned: &mut Learned,
) -> Result<bool, DialError> {
    if !service(shared, name, learned).await? {
        return Ok(false);
    }
    if let Some(Err(_)) = learned.members {
        // Neither pods nor endpoints can be listed; one pod may still be had.
        let path = format!("/api/v1/namespaces/{}/pods/{host}", name.namespace);
        if let Ok(raw) = shared.asking.get::<RawPod>(&path).await {
            learned.store.apply_pod(&raw);
            learned.members = None;
        }
    }
    Ok(true)
}

/// An address can be asked for only where the user may list: in one namespace.
async fn address(
    shared: &Arc<Shared>,
    namespace: &str,
    ip: std::net::IpAddr,
    learned: &mut Learned,
) -> Result<bool, DialError> {
    // Both kinds, whichever the snapshot has: what it lacks is why it was asked at all, and a
    // Service's address needs its pods too.
    let path = format!("/api/v1/namespaces/{namespace}/services?limit=500");
    if let Some(page) = listed::<RawService>(shared, &path).await {
        for raw in &page.items {
            learned.store.apply_service(raw);
            if let Some(Owner::Service(..)) = learned.store.owner(ip) {
                pods_of(shared, raw, learned).await?;
                return Ok(true);
            }
        }
    }
    let selector = escaped(&format!("status.podIP={ip}"));
    let path = format!("/api/v1/namespaces/{namespace}/pods?fieldSelector={selector}");
    if let Some(page) = listed::<RawPod>(shared, &path).await {
        for raw in &page.items {
            learned.store.apply_pod(raw);
        }
    }
    Ok(learned.store.owner(ip).is_some())
}

/// Attempts at a list before an address counts as nobody's.
const LIST_ATTEMPTS: u32 = 3;
/// Pause between them.
const LIST_PAUSE: Duration = Duration::from_millis(100);

/// A list, or `None` where it cannot be had. What passes, such as a connection that the API server
/// closed while it was being used again, is tried again: an address that is taken for nobody's is
/// dialled from the laptop, which is the wrong network.
async fn listed<T: DeserializeOwned>(shared: &Shared, path: &str) -> Option<Page<T>> {
    for attempt in 1..=LIST_ATTEMPTS {
        match shared.asking.get::<Page<T>>(path).await {
            Ok(page) => return Some(page),
            Err(error) => {
                tracing::debug!(path, attempt, %error, "list failed");
                if !error.is_passing() {
                    return None;
                }
                tokio::time::sleep(LIST_PAUSE).await;
            }
        }
    }
    None
}

pub(super) fn denied(error: ClientError, verb: &str, resource: &str, namespace: &str) -> DialError {
    match error {
        ClientError::Status { message, .. } => access::denied(&message, verb, resource, namespace),
        other => other.into(),
    }
}
