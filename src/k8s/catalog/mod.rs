//! What names and addresses mean in the cluster, kept current by watching.
//!
//! Services and pods are watched: cluster-wide where the user may, else in the context's
//! namespace and in those that dials speak of. A Service's pods are found by its selector, as the
//! endpoint controller does it, from the pods themselves: that is fresher than EndpointSlices and
//! needs no right to see them. EndpointSlices, or Endpoints where the server lacks v1 slices, are
//! asked for where pods cannot be listed and for Services without a selector. What may not be
//! watched is asked for when it is dialled.

mod address;
mod detail;
mod failure;
mod family;
mod feed;
mod hint;
mod learn;
mod lookup;
mod members;
mod mine;
mod missing;
mod name;
mod object;
mod picked;
mod pod;
mod records;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod texts;

pub use self::detail::{Labelled, LabelledPod, PodDetail, PortDetail, ServiceDetail};
pub use self::picked::{Picked, WorkloadKind};

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use self::learn::{Answer, Learned};
use self::name::{Query, What};
use self::shared::{FeedState, Shared};
use self::store::{Owner, ServiceKind};
use super::client::Client;
use crate::addr::{ClusterDomain, ClusterName, Host, Names, Namespaced, Protocol, Target};
use crate::dial::{DialError, Notes, Resolution, Resolve, Wanted};
use crate::task::Tasks;

/// What names and addresses mean in the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

/// A Service, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Its name.
    pub name: Namespaced,
    /// Its TCP ports: name (may be empty) and number.
    pub ports: Vec<(String, u16)>,
    /// How many of its pods are ready; none for one without a selector.
    pub ready: Option<usize>,
    /// Its own addresses.
    pub ips: Vec<IpAddr>,
}

/// What is watched, or may not be, for `kdev status` and `kdev doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// `services` or `pods`.
    pub resource: &'static str,
    /// The namespace; none for the whole cluster.
    pub namespace: Option<String>,
    /// How it goes.
    pub state: WatchState,
}

/// How watching goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// The first list is not complete.
    Syncing,
    /// The snapshot is complete and followed.
    Live,
    /// The user may not: what is dialled is asked for one by one, as far as that is allowed.
    Forbidden {
        /// The missing verb: `list` or `watch`.
        verb: &'static str,
    },
}

impl Catalog {
    /// Starts watching.
    #[must_use]
    pub fn start(client: Client, domain: ClusterDomain, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared::new(client, domain, tasks));
        shared.start();
        Self { shared }
    }

    /// Completes when [`Resolve::resolve`] knows all that it will know by itself: what may be
    /// watched in the context's namespace or the whole cluster is complete.
    pub async fn synced(&self) {
        let mut changes = self.changes();
        while !self.shared.is_settled() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Counts changes of Services and pods, so that others notice pods going away.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes()
    }

    /// What is watched, by resource and namespace.
    #[must_use]
    pub fn watched(&self) -> Vec<Watched> {
        let feeds = self.shared.feeds().into_iter();
        let mut watched: Vec<Watched> = feeds
            .map(|(key, feed)| Watched {
                resource: key.kind.plural(),
                namespace: key.scope.map(|scope| scope.to_string()),
                state: match feed {
                    FeedState::Syncing => WatchState::Syncing,
                    FeedState::Live => WatchState::Live,
                    FeedState::Forbidden { verb, .. } => WatchState::Forbidden { verb },
                },
            })
            .collect();
        watched
            .sort_unstable_by(|a, b| (a.resource, &a.namespace).cmp(&(b.resource, &b.namespace)));
        watched
    }

    /// The known Services, by namespace and name.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceInfo> {
        self.shared.read(|store| {
            let namespaces = store.namespaces.iter();
            let mut services: Vec<ServiceInfo> = namespaces
                .flat_map(|(namespace, content)| {
                    content.services.iter().map(move |(name, service)| {
                        let tcp = service.ports.iter().filter(|p| p.protocol == Protocol::Tcp);
                        let ready = || {
                            let pods = content.selected(&service.selector);
                            pods.filter(|(_, pod)| service.takes(pod)).count()
                        };
                        ServiceInfo {
                            name: Namespaced::new(&**namespace, &**name),
                            ports: tcp.map(|p| (p.name.to_string(), p.port)).collect(),
                            ready: (!service.selector.is_empty()
                                && !matches!(service.kind, ServiceKind::External(_)))
                            .then(ready),
                            ips: service.ips.to_vec(),
                        }
                    })
                })
                .collect();
            services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            services
        })
    }

    /// As [`Catalog::service_detail`], but asks the cluster about a Service that is not known.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn learn_service(
        &self,
        name: &Namespaced,
    ) -> Result<Option<ServiceDetail>, DialError> {
        if let Some(known) = self.service_detail(name) {
            return Ok(Some(known));
        }
        let query = Query::service(name.clone());
        let learned = Arc::clone(&self.shared).ask(&query).await;
        match self.service_detail(name) {
            Some(known) => Ok(Some(known)),
            None => learned.is_there().map(|_| None),
        }
    }

    /// The Service whose address this is, as far as it is known.
    #[must_use]
    pub fn service_at(&self, ip: IpAddr) -> Option<Namespaced> {
        self.shared.read(|store| match store.owner(ip) {
            Some(Owner::Service(namespace, name)) => Some(Namespaced::new(&**namespace, &**name)),
            Some(Owner::Pod(..)) | None => None,
        })
    }

    /// The Services that a name may mean, the likeliest first.
    #[must_use]
    pub fn services_named(&self, host: &Host) -> Vec<Namespaced> {
        let queries = self.queries(host, Names::Relative).into_iter();
        queries
            .filter_map(|query| match query.what {
                What::Name(ClusterName::Service(service)) => Some(service),
                _ => None,
            })
            .collect()
    }

    fn queries(&self, host: &Host, names: Names) -> Vec<Query> {
        let namespace = self.shared.client.namespace();
        Query::of(host, namespace, &self.shared.domain, names)
    }

    /// The first of `queries` that is there decides. `learned` is what was asked for about them, if
    /// anything was.
    fn settle(
        &self,
        wanted: Wanted<'_>,
        queries: &[Query],
        learned: Option<&[(Query, Arc<Learned>)]>,
        notes: &mut Notes,
    ) -> Resolution {
        let target = wanted.target;
        for query in queries {
            let mut all = learned.into_iter().flatten();
            let asked = all.find(|(asked, _)| asked == query);
            let asked = asked.map(|(_, learned)| Arc::clone(learned));
            let mut answer = self.shared.known(query, wanted);
            let mut reply = None;
            if matches!(answer, Answer::Unknown) {
                reply = asked.or_else(|| self.shared.answered(query));
                if let Some(reply) = &reply {
                    answer = reply.answer(query, wanted);
                }
            }
            match answer {
                Answer::Is(resolution) => {
                    let place = || self.shared.place(query);
                    notes.add(|| match &resolution {
                        Resolution::Failed(_) => format!("{} is read as {query}", target.host),
                        _ => format!("{} is read as {query}: there ({})", target.host, place()),
                    });
                    return resolution;
                }
                Answer::Absent => notes.add(|| {
                    let why = match reply.as_ref().and_then(|reply| reply.dropped()) {
                        Some(DialError::Denied {
                            verb,
                            resource,
                            namespace,
                            ..
                        }) => format!("you may not {verb} {resource} in namespace {namespace}"),
                        Some(error) => error.to_string(),
                        None => self.shared.place(query),
                    };
                    format!("{} is read as {query}: not there ({why})", target.host)
                }),
                Answer::Unknown if learned.is_none() => return Resolution::Unknown,
                Answer::Unknown => {}
            }
        }
        match queries.iter().find(|query| query.certain) {
            // Whether its namespace exists is not watched.
            Some(query)
                if learned.is_none()
                    && query.namespace().is_some_and(|n| !self.shared.knows(n)) =>
            {
                Resolution::Unknown
            }
            Some(query) => self
                .shared
                .read(|store| missing::not_found(store, query, wanted)),
            None => {
                if queries.is_empty() {
                    let host = &target.host;
                    notes.add(|| format!("{host} has the form of no name in the cluster"));
                }
                Resolution::Elsewhere
            }
        }
    }
}

impl Resolve for Catalog {
    fn resolve_as(&self, wanted: Wanted<'_>, notes: &mut Notes) -> Resolution {
        let queries = self.queries(&wanted.target.host, wanted.names);
        self.settle(wanted, &queries, None, notes)
    }

    async fn learn_as(&self, wanted: Wanted<'_>, notes: &mut Notes) -> Resolution {
        let queries = self.queries(&wanted.target.host, wanted.names);
        if queries.iter().any(|query| query.ip().is_some()) {
            // Addresses can hardly be asked for; the first list brings them.
            let _ = tokio::time::timeout(learn::LEARN_TIMEOUT, self.synced()).await;
        }
        let unknown = queries
            .iter()
            .filter(|query| matches!(self.shared.known(query, wanted), Answer::Unknown));
        let asking = unknown.map(|query| async {
            let learned = Arc::clone(&self.shared).ask(query).await;
            (query.clone(), learned)
        });
        let learned = futures_util::future::join_all(asking).await;
        let mut found = self.settle(wanted, &queries, Some(&learned), notes);
        let certain = queries.iter().find(|query| query.certain);
        if let Resolution::Failed(DialError::NotFound { fix, .. }) = &mut found
            && let Some(What::Name(ClusterName::Service(service))) = certain.map(|q| &q.what)
        {
            *fix = self.absence(service).await;
        }
        found
    }

    async fn hint(&self, target: &Target) -> Option<String> {
        self.hint_of(&target.host).await
    }
}
