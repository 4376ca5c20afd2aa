//! Intercepts of one kdev: a Service's requests, or some of them, come to an app of this laptop
//! until it ends; then the Service is as it was.
//!
//! * [`asked`]: what a user asks for; [`owner`](mod@owner): whose it is; [`seen`](mod@seen): what the
//!   relay knows of it
//! * [`begin`]: how one begins, [`start`]: and with it all, unless a signal comes; [`live`]: how it goes
//!   on and ends; [`left`]: what is left where nobody waited for that; [`shown`]: to `kdev status`
//! * [`drive`]: all of one kdev together; [`alone`]: without a command beside them

mod alone;
mod asked;
mod begin;
mod drive;
mod left;
mod live;
mod owner;
mod seen;
mod shown;
mod start;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::alone::{Alone, End, free_port};
pub use self::asked::{Asked, Source, Terms, app_at};
pub(in crate::app) use self::begin::DEAD;
use self::begin::Site;
use self::drive::Driver;
pub use self::owner::{mine, owner};
pub use self::seen::{Seen, seen};
pub(in crate::app) use self::shown::Shown;
pub(in crate::app) use self::start::Started;
use super::Session;
use super::late::{ByRelay, Helper, clear_due};
use super::signals::Ending;
use crate::addr::Target;
use crate::config::Config;
use crate::intercept::OnRecord;
use crate::intercept::reverse::{BrokeOff, Served};
use crate::k8s::redirect::{Redirector, through_tunnels};
use crate::k8s::relay;
use crate::rule::Claim;
use crate::task::Tasks;

/// How long the first tunnels may take.
const FIRST_TUNNELS: Duration = Duration::from_secs(15);
/// Events that wait to be shown.
const EVENTS: usize = 1024;

/// What a user hears of intercepts.
#[derive(Clone, Debug)]
pub enum Event {
    /// One is live.
    Live(Box<Begun>),
    /// A request of one was answered, or has ended without that.
    Request {
        /// The Service.
        service: String,
        /// Whether the app got a copy of it.
        copy: bool,
        /// The request.
        served: Served,
    },
    /// The answer to a request broke off in the middle.
    BrokeOff {
        /// The Service.
        service: String,
        /// Whether the app got a copy of it.
        copy: bool,
        /// The answer.
        answer: BrokeOff,
    },
    /// Something that the user should know.
    Note(String),
    /// What is done or waited for from now on, for whoever wonders why it takes long.
    Step(String),
    /// One has ended.
    Ended {
        /// The claim.
        id: String,
        /// The Service.
        service: String,
        /// Why.
        reason: String,
        /// Whether its owner wanted that.
        wanted: bool,
    },
}

/// An intercept that is live.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its port.
    pub port: u16,
    /// The claim.
    pub claim: Claim,
    /// The app.
    pub app: Target,
    /// Claims of others that a request may fulfil as well.
    pub overlaps: Vec<Claim>,
    /// Why the app does not answer yet, where it does not.
    pub down: Option<String>,
}

/// Told what happens; called from the tasks that do it, so it should not wait.
pub type Teller = Arc<dyn Fn(Event) + Send + Sync>;

/// What is intercepted while a command runs.
#[derive(Clone)]
pub struct Planned {
    /// The Services, and the apps for their requests.
    pub asked: Vec<Asked>,
    /// Which requests, and how.
    pub terms: Terms,
    /// Who hears of it.
    pub tell: Teller,
    /// The port that the command is told to listen on.
    pub port: Option<u16>,
}

/// Why all are over though nobody stopped this kdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::app) enum Over {
    /// Their owner ended the last one from elsewhere, which this says.
    Left(String),
    /// Somebody else or the cluster did.
    Broken(String),
}

/// Intercepts that are live.
pub struct Intercepts {
    stop: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<Option<Over>>,
    /// When giving them back began, whatever the reason.
    ends: Arc<OnceLock<Instant>>,
    tasks: Tasks,
    record: Record,
}

/// What they have left in the cluster, and who hears of it.
#[derive(Clone)]
struct Record {
    on_record: OnRecord,
    /// Cancelled where they are to end before all are live.
    told_to_end: CancellationToken,
    namespace: String,
    tell: Teller,
    helper: Helper,
}

impl Record {
    fn new(session: &Session, config: &Config, plan: &Planned) -> Self {
        Self {
            on_record: OnRecord::default(),
            told_to_end: CancellationToken::new(),
            namespace: session.client.namespace().to_owned(),
            tell: plan.tell.clone(),
            helper: Helper::new(config, &session.client),
        }
    }

    fn note(&self, text: String) {
        (self.tell)(Event::Note(text));
    }

    /// Says what is left to the user, and leaves to the helper what is for late callers alone.
    async fn leave(&self) {
        let left = left::words(&self.on_record, &self.namespace);
        left.into_iter().for_each(|text| self.note(text));
        if self.on_record.has_passage() {
            self.helper.start().await;
        }
    }
}

impl Intercepts {
    /// Begins all that is planned, or none, as intercepts of `session`. Dropping the future leaves
    /// what `record` says.
    ///
    /// # Errors
    /// Why one could not begin; those before it are given back.
    async fn start(
        session: &Session,
        config: &Config,
        plan: &Planned,
        record: Record,
    ) -> anyhow::Result<Self> {
        let (client, pods) = (&session.client, &session.pods);
        let (events, heard) = mpsc::channel(EVENTS);
        let background = session.background();
        let reverse = relay::reverse(
            client,
            &session.catalog,
            pods,
            config.carrier,
            background,
            events,
        );
        // Also where nothing else is to go by it: whether callers arrive has to be seen.
        let relay = session.relay.clone();
        let relay = relay.unwrap_or_else(|| {
            relay::start(client, &session.catalog, pods, config.carrier, background)
        });
        let namespace = client.namespace();
        let ways = through_tunnels(client, pods, namespace);
        let tell = session.shown.teller(plan.tell.clone(), reverse.clone());
        let site = Site {
            client: client.clone(),
            redirector: Redirector::marking(client, namespace, ways, &config.shape, background),
            reverse,
            relay,
            owner: owner(config),
            terms: plan.terms.clone(),
            tell,
            on_record: record.on_record.clone(),
            told_to_end: record.told_to_end.clone(),
            tasks: background.clone(),
        };
        site.step("waiting for tunnels to the relay".to_owned());
        if let Err(error) = site.reverse.ready(FIRST_TUNNELS).await {
            site.reverse.close(Duration::ZERO).await;
            // Pods that run and are not ready refuse tunnels; why they are not says more.
            return Err(match relay::standing(client).await {
                Ok(Some(standing)) if standing.ready == 0 => {
                    relay::unready(namespace, &standing).into()
                }
                _ => error.into(),
            });
        }
        // What a helper that was killed left.
        let (there, relay) = (client.clone(), site.reverse.clone());
        background.spawn(async move {
            clear_due(&there, there.namespace(), &ByRelay(&relay)).await;
        });
        let driver = Driver::begin(site, &plan.asked, heard).await?;
        let (tasks, (stop, stopped), (ended, done)) =
            (Tasks::new(), oneshot::channel(), oneshot::channel());
        let ends = Arc::new(OnceLock::new());
        let begun = ends.clone();
        tasks.spawn(async move {
            // Whoever waited is gone.
            let _ = ended.send(driver.run(stopped, &begun).await);
        });
        Ok(Self {
            stop: Some(stop),
            done,
            ends,
            tasks,
            record,
        })
    }

    /// Whether they were told to be live before anybody told them to end.
    fn were_live(&self) -> bool {
        !self.record.told_to_end.is_cancelled()
    }

    /// Completes when all have ended, and were given back where they had to be; with the reason
    /// where they were not stopped. Dropping the future loses nothing.
    pub(in crate::app) async fn ended(&mut self) -> Option<Over> {
        match (&mut self.done).await {
            Ok(reason) => reason,
            Err(_) => Some(Over::Broken("it was broken off".to_owned())),
        }
    }

    /// Asks for the end, unless that has begun by itself, and waits for it. When `ending` hears once
    /// more that it shall end, what is not given back yet is left to `kdev restore`, and said: `false`
    /// then.
    pub(in crate::app) async fn give_back(mut self, ending: &mut Ending) -> bool {
        let since = *self.ends.get_or_init(Instant::now);
        if let Some(stop) = self.stop.take() {
            // They have ended by themselves.
            let _ = stop.send(());
        }
        let in_order = tokio::select! {
            biased;
            _ = self.ended() => true,
            () = ending.again(since) => false,
        };
        self.close().await;
        in_order
    }

    /// Ends at once, and sees to what is left.
    async fn close(self) {
        self.tasks.shutdown(Duration::ZERO).await;
        self.record.leave().await;
    }
}
