//! The seam to the cluster: a Service's traffic comes to the relay, and goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::claim::{Claim, Judge};

/// Brings Services' traffic to the relay.
pub trait Redirect: Send + Sync {
    /// What stands for one claim on one Service.
    type Redirected: Redirected;

    /// Puts the claim on record and sees to it that the Service's traffic comes to the relay. Where
    /// it fails, what it did is undone. Dropping the future may leave a claim without anybody, which
    /// `kdev restore` finds; [`Wanted::on_record`] says whether it may.
    ///
    /// # Errors
    /// Why not; nothing is changed then.
    fn redirect(
        &self,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Self::Redirected, RedirectError>> + Send;
}

/// A claim on a Service whose traffic comes to the relay. Dropping it changes nothing in the
/// cluster: that is what [`Redirected::restore`] is for.
pub trait Redirected: Send {
    /// What the claim is of.
    fn claim(&self) -> &Claim;

    /// Where the Service's ports arrive.
    fn landings(&self) -> &[Landing];

    /// Waits for the next thing that somebody else did to it. Dropping the future loses nothing.
    fn changed(&mut self) -> impl Future<Output = Change> + Send;

    /// Brings the traffic to the relay again after [`Change::Drifted`]. Dropping the future leaves
    /// the Service as it was or as it shall be.
    ///
    /// # Errors
    /// Why that cannot be.
    fn again(&mut self) -> impl Future<Output = Result<(), RedirectError>> + Send;

    /// Takes the claim back, and with the last one gives the Service its own pods again, as it was.
    /// What is dropped halfway goes on where it was when called again, or is left to `kdev restore`.
    ///
    /// # Errors
    /// When the cluster does not let it.
    fn restore(&mut self) -> impl Future<Output = Result<Left, RedirectError>> + Send;

    /// The same without a relay that could serve anybody: the Service gets its own pods again whoever
    /// else has claims on it. Those stay on record, for when their owners or the relay are back.
    ///
    /// # Errors
    /// When the cluster does not let it.
    fn release(&mut self) -> impl Future<Output = Result<Left, RedirectError>> + Send;
}

/// Tells the user something; called from the tasks that do it, so it should not wait.
pub type Say = Arc<dyn Fn(Told) + Send + Sync>;

/// What a user is told while a Service is brought to the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something to know.
    Note(String),
    /// What is done or waited for from now on, for whoever wonders why it takes long.
    Step(String),
}

/// What is asked for.
#[derive(Clone)]
pub struct Wanted {
    /// The Service, in the namespace of the redirect.
    pub service: String,
    /// The number of its port whose requests are wanted.
    pub port: u16,
    /// The claim on it.
    pub claim: Claim,
    /// Who hears what is waited for.
    pub say: Say,
    /// Whether it may join others.
    pub judge: Judge,
    /// Whether what is merely unwise is done all the same.
    pub force: bool,
    /// Says what dropping the future may leave.
    pub on_record: OnRecord,
    /// Cancelled once the user does not want it any more: what has not begun does not begin then.
    pub told_to_end: CancellationToken,
}

/// What of one kdev is in the cluster, by Service. Cloning is shallow: all clones are the same record.
#[derive(Clone, Debug, Default)]
pub struct OnRecord(Arc<Mutex<BTreeMap<String, Traces>>>);

/// What of one kdev is in the cluster for one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Ids of claims that may be on record, so that the Service may lead to the relay.
    pub claims: BTreeSet<String>,
    /// Whether the Service was given back and what leads late callers to its pods is there still.
    pub passage: bool,
}

impl OnRecord {
    /// A claim is about to be there.
    pub fn begin(&self, service: &str, id: &str) {
        let mut all = self.lock();
        let traces = all.entry(service.to_owned()).or_default();
        traces.claims.insert(id.to_owned());
        traces.passage = false;
    }

    /// A claim was taken off, which left this; or it never came to be.
    pub fn end(&self, service: &str, id: &str, left: &Left) {
        self.change(service, |traces| {
            traces.claims.remove(id);
            traces.passage = *left == Left::Last;
        });
    }

    /// Whether there may be any claim.
    #[must_use]
    pub fn may_be(&self) -> bool {
        self.lock().values().any(|traces| !traces.claims.is_empty())
    }

    /// Whether there is anything for late callers of a Service that was given back.
    #[must_use]
    pub fn has_passage(&self) -> bool {
        self.lock().values().any(|traces| traces.passage)
    }

    /// All that is there, by Service.
    #[must_use]
    pub fn left(&self) -> BTreeMap<String, Traces> {
        self.lock().clone()
    }

    fn change(&self, service: &str, change: impl FnOnce(&mut Traces)) {
        let mut all = self.lock();
        if let Some(traces) = all.get_mut(service) {
            change(traces);
            if *traces == Traces::default() {
                all.remove(service);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Traces>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a port of a Service arrives at the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// The port's name in the Service; may be empty where it is the only one.
    pub name: String,
    /// Its number in the Service.
    pub port: u16,
    /// `appProtocol`, where it says one.
    pub protocol: Option<String>,
    /// The relay's port.
    pub landing: u16,
}

/// What became of a Service whose claim was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is as it was before any intercept.
    Last,
    /// This many claims of others are on it, so it stays.
    Others(usize),
    /// There was nothing to take back: it is gone, or somebody cleaned up.
    Nothing,
}

/// What somebody else did to a Service whose traffic comes to the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was set back, which is named: helm, Argo CD, kubectl apply.
    Drifted(String),
    /// The claim was taken off, by whom if they said so.
    ClaimGone(Option<String>),
    /// It was deleted.
    ServiceGone,
    /// Its namespace is being deleted.
    NamespaceGone,
    /// The user may not look at it any more: rights were taken away, or they went with the namespace,
    /// which takes its RoleBindings along before the rest.
    RightsGone,
    /// The relay was uninstalled.
    RelayGone,
    /// Callers do not get through any more, though the relay and the pods are ready: why, and what
    /// mends it.
    CutOff(String),
    /// No replica of the relay has been ready for a while.
    RelayDown,
    /// One is ready again.
    RelayBack,
}

/// Why a Service's traffic does not come to the relay, or not go back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RedirectError {
    /// The Service is not one that can be intercepted, or not wisely.
    #[error("Service {service} cannot be intercepted: {reason}; {fix}")]
    Unfit {
        /// The Service.
        service: String,
        /// Why.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// Another claim is in the way.
    #[error("{0}")]
    Conflict(String),
    /// There is no room for another one.
    #[error("{what}; {fix}")]
    Full {
        /// What is full.
        what: String,
        /// What to do.
        fix: String,
    },
    /// Something that it takes is not there.
    #[error("{what} was not found{}", suffix(.fix))]
    Missing {
        /// What.
        what: String,
        /// What to do; may be empty.
        fix: String,
    },
    /// Kubernetes does not allow it.
    #[error(
        "not allowed to {what} in namespace {namespace}; the built-in role `edit` there has all that is needed"
    )]
    Denied {
        /// Verbs and resources.
        what: String,
        /// Where.
        namespace: String,
    },
    /// The relay could not pass callers on to the original pods.
    #[error("the relay cannot pass on what is not yours, so nothing was changed: {reason}; {fix}")]
    Unreachable {
        /// What failed, and where.
        reason: String,
        /// The likely cause.
        fix: String,
    },
    /// Callers could not reach the relay.
    #[error("callers would not reach the relay, so nothing was changed: {reason}; {fix}")]
    Shut {
        /// What failed, and where.
        reason: String,
        /// The likely cause, and what mends it.
        fix: String,
    },
    /// The user did not want it any more.
    #[error("it was told to end before it was live")]
    ToldToEnd,
    /// Others changed the same things again and again.
    #[error("{what} was changed by others {seconds} s long; try again")]
    Contended {
        /// Which object.
        what: String,
        /// How long it was tried.
        seconds: u64,
    },
    /// The API server refused it or cannot be reached.
    #[error("{0}")]
    Cluster(String),
}

fn suffix(fix: &str) -> String {
    match fix {
        "" => String::new(),
        fix => format!("; {fix}"),
    }
}
