//! How an intercept begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::seen::seen;
use super::{Asked, Begun, Event, Teller, Terms};
use crate::addr::{Host, Target};
use crate::dial::{Answer, Dial as _, DialError, DialRelay as _, Laptop};
use crate::intercept::record::{Life, judge, overlapping, record};
use crate::intercept::reverse::{Reverse, Standing};
use crate::intercept::{OnRecord, Redirect as _, RedirectError, Redirected as _, Told, Wanted};
use crate::k8s::Client;
use crate::k8s::netpolicy::advice::let_callers_in;
use crate::k8s::redirect::list::{Intercepted, Scope, ServicePort, list, ports};
use crate::k8s::redirect::{Guard, Redirector, drain};
use crate::rule::control::Tell;
use crate::rule::{AppProtocol, Claim};
use crate::task::Tasks;
use crate::tunnel::pool::Pool;

/// How long one's own former kdev is waited for, which the relay may not know yet to be gone: the
/// end of a port-forward comes a second or two late, and [`DEAD`] is on top of that.
const GHOST: Duration = Duration::from_secs(6);
/// How long a kdev is without a tunnel until it counts as dead: one that lost its tunnels, or whose
/// relay restarts, has the next within a second.
pub(in crate::app) const DEAD: Duration = Duration::from_millis(1500);
/// How often it is looked whether it is gone.
const GHOST_LOOK: Duration = Duration::from_millis(400);
/// How long the cluster may take until the Service's address leads to the relay.
const LANDED: Duration = Duration::from_secs(6);
/// How long connections may be refused meanwhile. A node may take the old addresses out in one round of kube-proxy and
/// put the new ones in with the next, which begins a second later at the earliest and takes what it takes on a busy one.
/// Callers are served again at once then.
const SHUT: Duration = Duration::from_secs(3);
/// How long they may get no answer. A replica whose connection comes back to itself gets none on some
/// networks, so that several are tried.
const SILENT: Duration = Duration::from_secs(4);
/// How long each may take.
const LANDED_TRY: Duration = Duration::from_millis(500);
/// Pause between two looks.
const LANDED_LOOK: Duration = Duration::from_millis(50);
/// How long the app may take to show that it listens.
const APP: Duration = Duration::from_secs(1);

/// What all intercepts of one kdev share.
pub(super) struct Site {
    pub(super) client: Client,
    pub(super) redirector: Redirector,
    pub(super) reverse: Reverse,
    pub(super) relay: Pool,
    pub(super) owner: String,
    pub(super) terms: Terms,
    pub(super) tell: Teller,
    pub(super) on_record: OnRecord,
    /// Cancelled once the user wants none of those that have not begun.
    pub(super) told_to_end: CancellationToken,
    /// What goes on beside the intercepts, and ends with the session.
    pub(super) tasks: Tasks,
}

impl Site {
    pub(super) fn note(&self, text: String) {
        (self.tell)(Event::Note(text));
    }

    /// Says what goes on from now on.
    pub(super) fn step(&self, what: String) {
        (self.tell)(Event::Step(what));
    }

    /// Begins one.
    pub(super) async fn begin(&self, asked: &Asked) -> anyhow::Result<Live> {
        let service = &asked.service.service;
        let ports = ports(&self.client, service).await?;
        let port = asked.service.choose(&ports).map_err(|why| anyhow!(why))?;
        let claim = self.claim(port);
        let mut guard = self.redirect(service, port, &claim).await?;
        let landing = guard.landings().iter().find(|l| l.port == port.port);
        let Some(landing) = landing.map(|landing| landing.landing) else {
            self.undo(service, &mut guard).await;
            bail!(
                "port {} of Service {service} went away meanwhile",
                port.port
            );
        };
        self.step(format!(
            "waiting for connections to {service} to arrive at the relay"
        ));
        let landed = self.landed(service, port.port, landing);
        let Some(landed) = self.told_to_end.run_until_cancelled(landed).await else {
            return Err(self.told(service, &mut guard).await);
        };
        if let Err(missed) = landed {
            let label = match port.name.as_str() {
                "" => format!("port {} of {service}", port.port),
                name => format!("port {name} ({}) of {service}", port.port),
            };
            let why = format!("connections to {label} did not arrive at the relay: {missed}");
            if guard.relays_are_like_callers() {
                self.undo(service, &mut guard).await;
                // That --force would go on is not said: it would be the outage that this ended.
                bail!(
                    "{why}; the Service has its own pods again; {}",
                    let_callers_in(self.client.namespace())
                );
            }
            self.note(match guard.is_at_risk() {
                true => format!(
                    "{why}; by --force it goes on, and callers may get no answer: Ctrl-C gives the \
                     Service its own pods again"
                ),
                false => why,
            });
        }
        self.step(format!("asking the app at {}", asked.app));
        let down = down(&asked.app).await;
        let starting = self.terms.patient && down.is_some() && !claim.mirror && !claim.strict;
        let mut standing = Standing {
            port: landing,
            claim: claim.clone(),
            app: asked.app.clone(),
            log: self.terms.log,
        };
        standing.claim.fallback |= starting;
        let others = self.others(service).await.map(|found| found.claims);
        if self.told_to_end.is_cancelled() {
            return Err(self.told(service, &mut guard).await);
        }
        let by = Some(self.owner.clone());
        if let Err(why) = self.reverse.attach(standing.clone(), by).await {
            self.undo(service, &mut guard).await;
            bail!("the relay does not take the intercept: {why}");
        }
        let begun = Begun {
            service: service.clone(),
            namespace: self.client.namespace().to_owned(),
            port: port.port,
            overlaps: overlapping(port.port, &claim, &others.unwrap_or_default()),
            claim,
            app: asked.app.clone(),
            down: down.filter(|_| !starting),
        };
        // Nobody waits for it where the end was asked for in this very moment, and no pod is replaced.
        if !self.told_to_end.is_cancelled() {
            (self.tell)(Event::Live(Box::new(begun)));
            if self.terms.drain {
                self.drain(guard.origin());
            }
        }
        Ok(Live::new(asked.clone(), standing, guard, starting))
    }

    fn claim(&self, port: &ServicePort) -> Claim {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_or(0, |since| since.as_millis());
        let said = AppProtocol::of_port(port.app_protocol.as_deref(), Some(&port.name));
        Claim {
            id: id(),
            owner: self.owner.clone(),
            session: self.reverse.session(),
            conditions: self.terms.conditions.clone(),
            since: u64::try_from(since).unwrap_or(u64::MAX),
            mirror: self.terms.mirror,
            fallback: self.terms.fallback,
            strict: self.terms.strict,
            protocol: self.terms.protocol.unwrap_or(said),
        }
    }

    /// Has the Service's traffic come to the relay.
    async fn redirect(
        &self,
        service: &str,
        port: &ServicePort,
        claim: &Claim,
    ) -> anyhow::Result<Guard> {
        let tell = self.tell.clone();
        let until = Instant::now() + GHOST;
        let mut dead = BTreeMap::new();
        loop {
            let others = self.others(service).await;
            let seen = match &others {
                Some(found) => seen(&self.reverse, found, &claim.owner).await,
                None => BTreeMap::new(),
            };
            let lives = seen
                .into_iter()
                .filter_map(|(id, seen)| match seen.life {
                    Life::Dead => {
                        let since = *dead.entry(id.clone()).or_insert_with(Instant::now);
                        let sure = since.elapsed() >= DEAD;
                        sure.then_some((id, Life::Dead))
                    }
                    life => {
                        dead.remove(&id);
                        Some((id, life))
                    }
                })
                .collect();
            let own = others.iter().flat_map(|found| &found.claims);
            let own = own.filter(|other| other.owner == claim.owner).count() > 0;
            let tell = tell.clone();
            let wanted = Wanted {
                service: service.to_owned(),
                port: port.port,
                say: Arc::new(move |told| {
                    tell(match told {
                        Told::Note(text) => Event::Note(text),
                        Told::Step(what) => Event::Step(what),
                    });
                }),
                claim: record(port.port, claim),
                judge: judge(port.port, claim.clone(), lives, self.terms.take_over),
                force: self.terms.force,
                on_record: self.on_record.clone(),
                told_to_end: self.told_to_end.clone(),
            };
            match self.redirector.redirect(wanted).await {
                Err(RedirectError::Conflict(_)) if own && Instant::now() < until => {
                    self.step(format!(
                        "waiting for a former kdev of yours on {service} to be gone"
                    ));
                    sleep(GHOST_LOOK).await;
                }
                Err(RedirectError::Conflict(why)) => {
                    bail!("Service {service}, port {}: {why}", port.port)
                }
                other => return Ok(other?),
            }
        }
    }

    /// Gives back one that is not wanted any more.
    async fn told(&self, service: &str, guard: &mut Guard) -> anyhow::Error {
        self.undo(service, guard).await;
        RedirectError::ToldToEnd.into()
    }

    /// Takes the claim of one that did not come about off again.
    async fn undo(&self, service: &str, guard: &mut Guard) {
        self.step(format!("giving Service {service} back"));
        let left = guard.restore().await;
        let id = &guard.claim().id;
        match left {
            Ok(left) => self.on_record.end(service, id, &left),
            Err(error) => tracing::warn!("the claim on Service {service} stays: {error}"),
        }
    }

    /// Replaces the Service's pods one by one.
    fn drain(&self, origin: &str) {
        let (client, origin, tell) = (self.client.clone(), origin.to_owned(), self.tell.clone());
        let note = move |text: String| tell(Event::Note(text));
        self.tasks.spawn(async move {
            match drain(&client, &origin, |text| note(text.to_owned())).await {
                Ok(0) => note("no pod was replaced".to_owned()),
                Ok(_) => note("all pods were replaced".to_owned()),
                Err(error) => note(format!("connections from before may stay: {error}")),
            }
        });
    }

    /// What is on record for a Service.
    pub(super) async fn others(&self, service: &str) -> Option<Intercepted> {
        let scope = Scope::Namespace(self.client.namespace().to_owned());
        let all = list(&self.client, &scope).await.ok()?;
        all.into_iter().find(|found| found.service == service)
    }

    /// Waits until a connection to the Service's own address arrives at the relay; says what became of
    /// those that did not.
    async fn landed(&self, service: &str, port: u16, landing: u16) -> Result<(), String> {
        let target = Target::new(Host::Name(service.into()), port);
        let before = self.accepted(landing).await;
        let began = Instant::now();
        let mut connected = began;
        loop {
            let dial = self.relay.dial_relay(&target, Answer::Awaited);
            let outcome = timeout(LANDED_TRY, dial).await;
            // A caller's counts as well.
            if self.accepted(landing).await > before {
                return Ok(());
            }
            let (why, patience) = match outcome {
                Ok(Ok(_)) => {
                    connected = Instant::now();
                    ("they still went to its pods".to_owned(), LANDED)
                }
                // The relay's rules are not for callers.
                Ok(Err(DialError::Forbidden { .. })) => return Ok(()),
                Ok(Err(error @ DialError::Refused { .. })) => (error.to_string(), SHUT),
                Ok(Err(error)) => (error.to_string(), SILENT),
                Err(_) => (format!("{target} did not answer"), SILENT),
            };
            // While they go to its pods nobody misses anything.
            if connected.elapsed() >= patience || began.elapsed() >= LANDED {
                return Err(why);
            }
            sleep(LANDED_LOOK).await;
        }
    }

    async fn accepted(&self, landing: u16) -> u64 {
        let seen = self.reverse.look(landing).await.into_iter();
        let counts = seen.map(|tell| match tell {
            Tell::Seen { accepted, .. } => accepted,
            _ => 0,
        });
        counts.sum()
    }
}

/// Letters that are not taken for one another.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// Letters of an id: few enough to type, and of a billion kinds.
const LETTERS_OF_ID: usize = 6;

fn id() -> String {
    let letter = |_| LETTERS[rand::random_range(0..LETTERS.len())] as char;
    (0..LETTERS_OF_ID).map(letter).collect()
}

/// Why the app does not answer, if it does not.
pub(super) async fn down(app: &Target) -> Option<String> {
    match timeout(APP, Laptop { loopback: true }.dial(app)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("{app} does not answer")),
    }
}
