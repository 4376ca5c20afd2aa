//! The snapshot with its feeds, and the questions that are under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared as SharedFuture, WeakShared};
use tokio::sync::{OnceCell, watch};

use super::address::Written;
use super::feed;
use super::learn::{self, Answer, LEARN_PATIENCE, Learned};
use super::lookup::{self, Found};
use super::name::{Query, What};
use super::object::{RawPod, RawService};
use super::store::{Owner, Store};
use crate::addr::{ClusterDomain, ClusterName};
use crate::dial::{Resolution, Wanted};
use crate::k8s::client::{Client, ClientError};
use crate::k8s::discovery;
use crate::task::Tasks;

/// How many learned names are kept: those of a burst of dials.
const MAX_LEARNED: usize = 1024;
/// When a feed that was forbidden is tried again, on demand: rights may have been given.
const FORBIDDEN_RECHECK: Duration = Duration::from_secs(60);

/// What all handles of a catalog share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// The same for what a dial waits for.
    pub(super) asking: Client,
    pub(super) domain: ClusterDomain,
    pub(super) tasks: Tasks,
    state: RwLock<State>,
    learned: Mutex<HashMap<Query, Asked>>,
    slices: OnceCell<bool>,
    pub(super) written: Written,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    store: Store,
    feeds: HashMap<FeedKey, FeedState>,
}

/// A question to the API server.
enum Asked {
    Running(WeakShared<BoxFuture<'static, Arc<Learned>>>),
    Answered(Arc<Learned>),
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Services,
    Pods,
}

impl Kind {
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Pods => "pods",
        }
    }
}

/// A kind of object in a namespace, or in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FeedKey {
    pub(super) kind: Kind,
    pub(super) scope: Option<Arc<str>>,
}

/// How a feed is doing.
#[derive(Clone, Debug)]
pub(super) enum FeedState {
    /// The first list is not complete.
    Syncing,
    /// Complete, and followed; while the API server is away it is as old as that.
    Live,
    /// Not allowed to this user.
    Forbidden { verb: &'static str, since: Instant },
}

impl Shared {
    /// What is `wanted` by the snapshot, if it asks for `query`.
    pub(super) fn known(&self, query: &Query, wanted: Wanted<'_>) -> Answer {
        self.with(|state| {
            let owner = query.ip().and_then(|ip| state.store.owner(ip));
            let namespace = owner.map(Owner::namespace).or_else(|| query.namespace());
            let namespace = namespace.unwrap_or_else(|| self.client.namespace());
            let services = state.is_live(Kind::Services, namespace);
            let pods = state.is_live(Kind::Pods, namespace);
            let covered = pods && (services || matches!(query.what, What::Pods(_)));
            // That a Service does not exist is known without its pods.
            let no_service = || {
                query
                    .service_name()
                    .is_some_and(|s| state.store.service(s).is_none())
            };
            match lookup::find(&state.store, query, wanted) {
                Found::Is(alias @ Resolution::Alias { .. }) if services => Answer::Is(alias),
                Found::Is(known) if covered => Answer::Is(known),
                Found::Absent if covered || services && no_service() => Answer::Absent,
                _ if self.is_far_fetched(state, query) => Answer::Absent,
                Found::Is(_) | Found::Absent | Found::NoSelector => Answer::Unknown,
            }
        })
    }

    /// Whether a question is not worth two round trips: `www.example.com` is an endpoint of
    /// Service `example` in namespace `com` only for who may see such a namespace.
    fn is_far_fetched(&self, state: &State, query: &Query) -> bool {
        let What::Name(ClusterName::Endpoint { service, .. } | ClusterName::Srv { service, .. }) =
            &query.what
        else {
            return false;
        };
        !query.certain
            && service.namespace != self.client.namespace()
            && state.store.namespace(&service.namespace).is_none()
            && matches!(
                state.feed(Kind::Services, None),
                Some(FeedState::Forbidden { .. })
            )
    }

    /// Where `query` was looked for, for who asks.
    pub(super) fn place(&self, query: &Query) -> String {
        let namespace = query.namespace().unwrap_or_else(|| self.client.namespace());
        self.with(|state| {
            let live = |kind, scope| matches!(state.feed(kind, scope), Some(FeedState::Live));
            let both = |scope| live(Kind::Services, scope) && live(Kind::Pods, scope);
            if both(None) {
                return "the whole cluster is watched".to_owned();
            }
            if both(Some(namespace)) {
                return format!("namespace {namespace} is watched");
            }
            let missing = |kind: Kind| match state.feed(kind, Some(namespace)) {
                Some(FeedState::Forbidden { verb, .. }) => {
                    Some(format!("{verb} {}", kind.plural()))
                }
                _ => None,
            };
            let missing: Vec<String> = [Kind::Services, Kind::Pods]
                .into_iter()
                .filter_map(missing)
                .collect();
            if missing.is_empty() {
                "the API server was asked".to_owned()
            } else {
                format!(
                    "the API server was asked, since you may not {} in namespace {namespace}",
                    missing.join(" and ")
                )
            }
        })
    }

    /// Asks the cluster, together with whoever asks the same now.
    pub(super) async fn ask(self: Arc<Self>, query: &Query) -> Arc<Learned> {
        let running = {
            let mut learned = self.learned();
            match learned.get(query) {
                Some(Asked::Answered(answer)) if answer.is_good() => return Arc::clone(answer),
                Some(Asked::Running(running)) => running.upgrade(),
                _ => None,
            }
            .unwrap_or_else(|| {
                let question = Arc::clone(&self).question(query.clone()).boxed().shared();
                if learned.len() >= MAX_LEARNED {
                    learned.retain(|_, asked| match asked {
                        Asked::Running(running) => running.upgrade().is_some(),
                        Asked::Answered(answer) => answer.is_good(),
                    });
                }
                if let Some(weak) = question.downgrade() {
                    learned.insert(query.clone(), Asked::Running(weak));
                }
                question
            })
        };
        let running: SharedFuture<_> = running;
        running.await
    }

    async fn question(self: Arc<Self>, query: Query) -> Arc<Learned> {
        let answer = Arc::new(learn::ask(&self, &query).await);
        let mut learned = self.learned();
        learned.insert(query, Asked::Answered(Arc::clone(&answer)));
        answer
    }

    /// What was learned about `query` just now.
    pub(super) fn answered(&self, query: &Query) -> Option<Arc<Learned>> {
        match self.learned().get(query) {
            Some(Asked::Answered(answer)) if answer.is_good() => Some(Arc::clone(answer)),
            _ => None,
        }
    }

    /// Nothing is known, nothing is watched.
    pub(super) fn new(client: Client, domain: ClusterDomain, tasks: &Tasks) -> Self {
        Self {
            asking: client.patient_for(LEARN_PATIENCE),
            client,
            domain,
            tasks: tasks.clone(),
            state: RwLock::default(),
            learned: Mutex::default(),
            slices: OnceCell::new(),
            written: Written::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Watches the whole cluster, or as much of it as may be.
    pub(super) fn start(self: &Arc<Self>) {
        for kind in [Kind::Services, Kind::Pods] {
            self.ensure_feed(FeedKey { kind, scope: None });
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether anything in `namespace` was seen.
    pub(super) fn knows(&self, namespace: &str) -> bool {
        self.with(|state| state.store.namespace(namespace).is_some())
    }

    /// Whether the first lists are complete, as far as they may be had.
    pub(super) fn is_settled(&self) -> bool {
        let home = self.client.namespace();
        self.with(|state| {
            [Kind::Services, Kind::Pods]
                .into_iter()
                .all(|kind| match state.feed(kind, None) {
                    Some(FeedState::Live) => true,
                    Some(FeedState::Forbidden { .. }) => !matches!(
                        state.feed(kind, Some(home)),
                        None | Some(FeedState::Syncing)
                    ),
                    Some(FeedState::Syncing) | None => false,
                })
        })
    }

    /// How each feed is doing.
    pub(super) fn feeds(&self) -> Vec<(FeedKey, FeedState)> {
        self.with(|state| {
            let feeds = state.feeds.iter();
            feeds
                .map(|(key, feed)| (key.clone(), feed.clone()))
                .collect()
        })
    }

    /// Whether the server has discovery.k8s.io/v1; asked once. Where it does not say, it is asked
    /// for slices, as every server of today has them.
    pub(super) async fn has_slices(&self) -> bool {
        let ask = || async {
            let known = discovery::has_slices(&self.asking).await?;
            Ok::<bool, ClientError>(known.unwrap_or(true))
        };
        // A failure is no answer: the next question asks again.
        self.slices.get_or_try_init(ask).await.is_ok_and(|has| *has)
    }

    /// Starts to watch a namespace that turned out to matter, unless all are watched.
    pub(super) fn watch_namespace(self: &Arc<Self>, namespace: &str) {
        for kind in [Kind::Services, Kind::Pods] {
            let all_forbidden = self
                .with(|state| matches!(state.feed(kind, None), Some(FeedState::Forbidden { .. })));
            if all_forbidden {
                self.ensure_feed(FeedKey {
                    kind,
                    scope: Some(namespace.into()),
                });
            }
        }
    }

    /// Runs a feed, unless it runs already or was forbidden just now.
    fn ensure_feed(self: &Arc<Self>, key: FeedKey) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match state.feeds.get(&key) {
            Some(FeedState::Forbidden { since, .. }) if since.elapsed() >= FORBIDDEN_RECHECK => {}
            Some(_) => return,
            None => {}
        }
        state.feeds.insert(key.clone(), FeedState::Syncing);
        drop(state);
        let this = Arc::clone(self);
        match key.kind {
            Kind::Services => self.tasks.spawn(feed::run::<RawService>(this, key)),
            Kind::Pods => self.tasks.spawn(feed::run::<RawPod>(this, key)),
        }
    }

    /// A feed's new state.
    pub(super) fn set_feed(&self, key: &FeedKey, feed: FeedState) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.feeds.insert(key.clone(), feed);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// The user may not have `key`: without the whole cluster, the context's namespace.
    pub(super) fn forbidden(self: &Arc<Self>, key: &FeedKey, verb: &'static str) {
        let since = Instant::now();
        if key.scope.is_none() {
            self.ensure_feed(FeedKey {
                kind: key.kind,
                scope: Some(self.client.namespace().into()),
            });
        }
        self.set_feed(key, FeedState::Forbidden { verb, since });
    }

    /// Reads what is known.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        self.with(|state| look(&state.store))
    }

    /// Reads what is known; `look` may ask whether a kind of object in a namespace is followed.
    pub(super) fn read_with<T>(
        &self,
        look: impl FnOnce(&Store, &dyn Fn(Kind, &str) -> bool) -> T,
    ) -> T {
        self.with(|state| {
            look(&state.store, &|kind, namespace| {
                state.is_live(kind, namespace)
            })
        })
    }

    /// Reads what is known, with the state of the feed that covers `kind` in `namespace` best.
    pub(super) fn read_feed<T>(
        &self,
        kind: Kind,
        namespace: &str,
        look: impl FnOnce(Option<&FeedState>, &Store) -> T,
    ) -> T {
        self.with(|state| {
            let feed = match state.feed(kind, None) {
                Some(FeedState::Forbidden { .. }) => state.feed(kind, Some(namespace)),
                all => all,
            };
            look(feed, &state.store)
        })
    }

    /// Changes what is known, and tells.
    pub(super) fn change(&self, change: impl FnOnce(&mut Store)) {
        self.change_if(|store| {
            change(store);
            true
        });
    }

    /// Changes what is known, and tells where `change` says so.
    pub(super) fn change_if(&self, change: impl FnOnce(&mut Store) -> bool) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut state.store);
        drop(state);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        // A panic while writing would be a bug; what is known is still the best there is.
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn learned(&self) -> MutexGuard<'_, HashMap<Query, Asked>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn feed(&self, kind: Kind, scope: Option<&str>) -> Option<&FeedState> {
        let scope = scope.map(Into::into);
        self.feeds.get(&FeedKey { kind, scope })
    }

    fn is_live(&self, kind: Kind, namespace: &str) -> bool {
        matches!(self.feed(kind, None), Some(FeedState::Live))
            || matches!(self.feed(kind, Some(namespace)), Some(FeedState::Live))
    }
}
