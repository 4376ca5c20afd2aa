//! All intercepts of one kdev, until they end.

use std::future::pending;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, select_all};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::begin::Site;
use super::live::{Fate, Live};
use super::{Asked, Event, Over};
use crate::app::said::Said;
use crate::intercept::{Change, reverse};
use crate::k8s::ClientError;

/// How long open streams may go on once all is given back.
const GRACE: Duration = Duration::from_secs(2);
/// How often an intercept that waits for the relay is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether an app answers that a command is about to start.
const STARTING: Duration = Duration::from_millis(250);

/// Why one ends that its owner does not want any more.
const TOLD_TO_END: &str = "it was told to end";

/// All intercepts of one kdev.
pub(super) struct Driver {
    site: Site,
    lives: Vec<Live>,
    /// Those that wait for the relay.
    waiting: Vec<Asked>,
    events: mpsc::Receiver<reverse::Event>,
    until: Option<Instant>,
    /// When those that wait are tried, and apps that start are looked at. They go on while events come.
    again: Interval,
    starting: Interval,
    said: Said,
    last: Option<Over>,
}

fn every(pause: Duration) -> Interval {
    let mut interval = interval(pause);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What happens next.
enum Next {
    Stop,
    Elapsed,
    LoginLost(ClientError),
    Change(usize, Change),
    Event(reverse::Event),
    Again,
    Starting,
}

impl Driver {
    /// Begins all, or none.
    ///
    /// # Errors
    /// Why one could not begin.
    pub(super) async fn begin(
        site: Site,
        asked: &[Asked],
        events: mpsc::Receiver<reverse::Event>,
    ) -> anyhow::Result<Self> {
        let mut driver = Self {
            site,
            lives: Vec::new(),
            waiting: Vec::new(),
            events,
            until: None,
            again: every(AGAIN),
            starting: every(STARTING),
            said: Said::default(),
            last: None,
        };
        for one in asked {
            match driver.site.begin(one).await {
                Ok(live) => driver.lives.push(live),
                Err(error) => {
                    match driver.site.told_to_end.is_cancelled() {
                        true => driver.end(TOLD_TO_END, true).await,
                        false => driver.end("another one could not begin", false).await,
                    }
                    return Err(error);
                }
            }
        }
        // From when all are live: what it takes until then may be long.
        let lasts = driver.site.terms.lasts;
        driver.until = lasts.map(|lasts| Instant::now() + lasts);
        Ok(driver)
    }

    /// Goes on until `stop`, or until all have ended, and gives back what is there; with the
    /// reason where nobody stopped it. Notes in `ends` when it begins to give back.
    pub(super) async fn run(
        mut self,
        stop: oneshot::Receiver<()>,
        ends: &OnceLock<Instant>,
    ) -> Option<Over> {
        let mut stop = stop.fuse();
        let mut told = TOLD_TO_END;
        let reason = loop {
            if self.lives.is_empty() && self.waiting.is_empty() {
                let last = self.last.take();
                break last.or_else(|| Some(Over::Broken("it has ended".to_owned())));
            }
            match self.next(&mut stop).await {
                Next::Stop => break None,
                Next::Elapsed => {
                    told = "its time is over";
                    self.site.note("the time is over".to_owned());
                    break None;
                }
                Next::LoginLost(error) => self.locked_out(&error).await,
                Next::Change(place, change) => {
                    let fate = self.lives[place].meet(&self.site, change).await;
                    self.decide(place, fate);
                }
                Next::Event(event) => self.hear(event).await,
                Next::Again => self.again().await,
                Next::Starting => {
                    for live in &mut self.lives {
                        live.look(&self.site).await;
                    }
                }
            }
        };
        ends.get_or_init(Instant::now);
        self.end(told, true).await;
        reason
    }

    async fn next(
        &mut self,
        stop: &mut (impl Future<Output = Result<(), oneshot::error::RecvError>> + Unpin),
    ) -> Next {
        let until = self.until;
        let elapsed = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        let any_waits = !self.waiting.is_empty();
        let any_starts = self.lives.iter().any(|live| live.starting);
        let changes = self.lives.iter_mut().enumerate();
        let changes =
            changes.map(|(place, live)| async move { (place, live.changed().await) }.boxed());
        let changes: Vec<_> = changes.collect();
        let change = async {
            match changes.is_empty() {
                true => pending().await,
                false => select_all(changes).await.0,
            }
        };
        tokio::select! {
            biased;
            // A handle that was dropped means the same.
            _ = stop => Next::Stop,
            () = elapsed => Next::Elapsed,
            error = self.site.client.lost() => Next::LoginLost(error),
            (place, change) = change => Next::Change(place, change),
            event = self.events.recv() => match event {
                Some(event) => Next::Event(event),
                None => Next::Stop,
            },
            _ = self.again.tick(), if any_waits => Next::Again,
            _ = self.starting.tick(), if any_starts => Next::Starting,
        }
    }

    fn decide(&mut self, place: usize, fate: Fate) {
        let (is_own, reason) = match fate {
            Fate::Lives => return,
            Fate::Waits(why) => {
                let live = self.lives.swap_remove(place);
                self.waiting.push(live.asked);
                self.site.note(why);
                return;
            }
            Fate::Left => (
                true,
                "you ended it from elsewhere, by `kdev leave` or an intercept in its place"
                    .to_owned(),
            ),
            Fate::Over(reason) => (false, reason),
        };
        let live = self.lives.swap_remove(place);
        (self.site.tell)(Event::Ended {
            id: live.id().to_owned(),
            service: live.service().to_owned(),
            reason: reason.clone(),
            wanted: is_own,
        });
        let what = format!("the intercept of {} is over: {reason}", live.service());
        self.last = Some(match is_own {
            true => Over::Left(what),
            false => Over::Broken(what),
        });
    }

    async fn hear(&mut self, event: reverse::Event) {
        let place = |id: &str| self.lives.iter().position(|live| live.id() == id);
        match event {
            reverse::Event::Served(served) => {
                if let Some(place) = place(&served.id) {
                    let live = &self.lives[place];
                    (self.site.tell)(Event::Request {
                        service: live.service().to_owned(),
                        copy: live.standing.claim.mirror,
                        served,
                    });
                }
            }
            reverse::Event::BrokeOff(answer) => {
                if let Some(place) = place(&answer.id) {
                    let live = &self.lives[place];
                    (self.site.tell)(Event::BrokeOff {
                        service: live.service().to_owned(),
                        copy: live.standing.claim.mirror,
                        answer,
                    });
                }
            }
            reverse::Event::AppDown { id, error } => {
                let Some(place) = place(&id) else { return };
                if self.lives[place].starting {
                    return;
                }
                let terms = &self.site.terms;
                let what = match terms.fallback || terms.mirror {
                    true => "the original pods answer",
                    false => "callers get a 502",
                };
                let service = self.lives[place].service();
                self.say(format!(
                    "a request of {service} found no app: {error}; {what}"
                ));
            }
            reverse::Event::Ousted { id, by } => {
                if let Some(place) = place(&id) {
                    // Where it was the last one, the Service is nobody's now.
                    self.lives[place].give_back_quickly(&self.site).await;
                    let fate = match by == self.site.owner {
                        true => Fate::Left,
                        false => Fate::Over(format!("{by} ended it")),
                    };
                    self.decide(place, fate);
                }
            }
            reverse::Event::Refused { id, reason } => {
                if let Some(place) = place(&id) {
                    let fate = self.lives[place].insist(&self.site, &reason).await;
                    self.decide(place, fate);
                }
            }
            reverse::Event::Unreached { port } => {
                for live in &mut self.lives {
                    live.doubt(port);
                }
            }
            reverse::Event::Intruded { attempts } => self.say(format!(
                "somebody else who knows the intercept key wanted to join this session and was \
                 refused (attempts: {attempts}); your requests still come to you alone. The API \
                 server's audit log has who opened port-forwards to the relay"
            )),
            reverse::Event::Fallback(fallback) => {
                if let Some(place) = place(&fallback.id) {
                    let service = self.lives[place].service();
                    self.site.note(fallback.describe(service));
                }
            }
            reverse::Event::Away => {
                let then = match self.site.terms.strict {
                    true => "get a 503",
                    false => "go to the original pods",
                };
                self.say(format!(
                    "the way to the relay is lost; your requests wait for it for 2 s, then {then}"
                ));
            }
            reverse::Event::Back => self.say("the way to the relay is back".to_owned()),
        }
    }

    /// Ends all, since nothing of the cluster can be changed any more: over the tunnels that are left
    /// the relay still learns of it.
    async fn locked_out(&mut self, error: &ClientError) {
        let site = &self.site;
        let ending = self
            .lives
            .iter_mut()
            .map(|live| live.give_back_quickly(site));
        join_all(ending).await;
        let why = format!("the login of this session is lost: {error}");
        self.waiting.clear();
        self.last = Some(Over::Broken(why.clone()));
        while !self.lives.is_empty() {
            self.decide(0, Fate::Over(why.clone()));
        }
    }

    /// Says something that was not said a moment ago.
    fn say(&self, text: String) {
        if self.said.is_new(&text) {
            self.site.note(text);
        }
    }

    /// Begins again what waits for the relay.
    async fn again(&mut self) {
        for asked in std::mem::take(&mut self.waiting) {
            match self.site.begin(&asked).await {
                Ok(live) => self.lives.push(live),
                Err(error) => {
                    tracing::debug!(%error, service = asked.service.service, "not yet again");
                    self.waiting.push(asked);
                }
            }
        }
    }

    /// Ends those that are left, for this reason, which their owner `wanted` or not.
    async fn end(self, reason: &str, wanted: bool) {
        let site = &self.site;
        let ending = self.lives.into_iter().map(|live| async move {
            let (id, service) = (live.id().to_owned(), live.service().to_owned());
            live.end(site).await;
            (site.tell)(Event::Ended {
                id,
                service,
                reason: reason.to_owned(),
                wanted,
            });
        });
        join_all(ending).await;
        self.site.reverse.close(GRACE).await;
    }
}
