//! Asks the API server about one name, where the snapshot does not cover it: at the start, in
//! namespaces that nobody spoke of yet, and where the user may not watch or list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;

use super::address;
use super::feed::escaped;
use super::lookup::{self, Found};
use super::members::Members;
use super::name::{Query, What};
use super::object::{Page, RawEndpoints, RawPod, RawService};
use super::picked;
use super::records;
use super::shared::Shared;
use super::store::Store;
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
    pub(super) store: Store,
    members: Option<Result<Members, DialError>>,
    /// The names of an address that somebody gave it.
    pub(super) names: Vec<String>,
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

    /// Whether it is there.
    pub(super) fn is_there(&self) -> Result<bool, DialError> {
        match &self.outcome {
            Outcome::Known => Ok(true),
            Outcome::Absent(None) => Ok(false),
            Outcome::Absent(Some(error)) | Outcome::Failed(error) => Err(error.clone()),
        }
    }

    /// What was seen, and the endpoints where pods may not be listed.
    pub(super) fn seen(&self) -> (&Store, Option<&Members>) {
        let members = self.members.as_ref().and_then(|m| m.as_ref().ok());
        (&self.store, members)
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
            (Outcome::Known, None) => match (subject, records::of(&self.store, None, subject)) {
                (Subject::Namespace(_), _) => dns::Found::Namespace,
                (Subject::Address(_), None) if !self.names.is_empty() => {
                    dns::Found::Owner(self.names.clone())
                }
                (_, found) => found.unwrap_or(dns::Found::Absent),
            },
        }
    }

    fn new(outcome: Outcome) -> Self {
        Self {
            store: Store::default(),
            members: None,
            names: Vec::new(),
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
                address::address(shared, namespace, *ip, &mut learned).await
            }
            What::Ip(ip) => {
                let namespace = shared.client.namespace();
                address::address(shared, namespace, *ip, &mut learned).await
            }
            What::Reverse(ip) => address::reverse(shared, *ip, &mut learned).await,
            What::Namespace(name) => exists(shared, name).await,
            What::Pods(pick) => picked::ask(shared, pick, &mut learned).await,
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
        What::Name(_) | What::Ip(_) | What::Reverse(_) | What::Namespace(_) | What::Pods(_) => {
            false
        }
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
pub(super) async fn pods_of(
    shared: &Arc<Shared>,
    raw: &RawService,
    learned: &mut Learned,
) -> Result<(), DialError> {
    let name = Namespaced::new(&raw.metadata.namespace, &raw.metadata.name);
    if raw.spec.kind == "ExternalName" {
        return Ok(());
    }
    if raw.spec.selector.is_empty() {
        learned.members = Some(endpoints(shared, &name).await);
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
            let members = endpoints(shared, &name).await;
            let missing = denied(error, "list", "pods", &name.namespace);
            learned.members = Some(members.map_err(|_| missing));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Where the server has EndpointSlices.
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1";
/// The label that names a slice's Service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";

/// Asks for a Service's endpoints.
async fn endpoints(shared: &Shared, name: &Namespaced) -> Result<Members, DialError> {
    let Namespaced { namespace, name } = name;
    let mut refused = None;
    if shared.has_slices().await {
        let selector = escaped(&format!("{SERVICE}={name}"));
        let path =
            format!("{SLICES}/namespaces/{namespace}/endpointslices?labelSelector={selector}");
        match shared.asking.get::<Page<RawEndpoints>>(&path).await {
            Ok(page) => return Ok(Members::of(page.items)),
            Err(error) if matches!(error.code(), Some(403 | 404)) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let path = format!("/api/v1/namespaces/{namespace}/endpoints/{name}");
    match shared.asking.get::<RawEndpoints>(&path).await {
        Ok(endpoints) => Ok(Members::of(vec![endpoints])),
        Err(error) if error.code() == Some(404) => Ok(Members::default()),
        Err(error) if error.code() == Some(403) => Err(match refused {
            Some(slices) => denied(slices, "list", "endpointslices.discovery.k8s.io", namespace),
            None => denied(error, "get", "endpoints", namespace),
        }),
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

/// Whether a namespace exists.
async fn exists(shared: &Arc<Shared>, name: &str) -> Result<bool, DialError> {
    let path = format!("/api/v1/namespaces/{name}");
    match shared.asking.get::<IgnoredAny>(&path).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(404) => Ok(false),
        Err(error) => Err(denied(error, "get", "namespaces", name)),
    }
}

pub(super) fn denied(error: ClientError, verb: &str, resource: &str, namespace: &str) -> DialError {
    match error {
        ClientError::Status { message, .. } => access::denied(&message, verb, resource, namespace),
        other => other.into(),
    }
}
