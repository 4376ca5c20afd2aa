//! kdev's side of the reverse tunnels against a real relay, over lines that fail as networks do.

mod broken;
mod claims;
mod events;
mod failed;
mod streams;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use kdev::intercept::reverse::{Event, Reverse, Standing};
use kdev::rule::control::Tell;
use kdev::rule::{AppProtocol, Claim, Condition, Conditions};
use kdev::tunnel::pool::Replicas;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use self::wire::Wire;
use super::support::*;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(10);

/// A kdev with reverse tunnels.
struct Side {
    reverse: Reverse,
    wire: Wire,
    events: mpsc::Receiver<Event>,
    replicas: watch::Sender<Replicas>,
    owner: &'static str,
    port: u16,
}

impl Side {
    /// One with a tunnel to each of these replicas.
    async fn of(owner: &'static str, stages: &[&Stage]) -> Self {
        let side = Self::over(owner, stages[0].first, Wire::to(stages));
        side.reverse.ready(LONG).await.unwrap();
        side
    }

    /// One that has just begun to make tunnels.
    fn over(owner: &'static str, port: u16, wire: Wire) -> Self {
        let (tell, events) = mpsc::channel(64);
        let replicas = watch::Sender::new(Replicas::of(wire.names()));
        Self {
            reverse: Reverse::start(wire.clone(), replicas.subscribe(), tell),
            wire,
            events,
            replicas,
            owner,
            port,
        }
    }

    /// A claim on requests with `x-user: ID`, or on all of them where `id` is `all`.
    fn standing(&self, id: &str, app: SocketAddr) -> Standing {
        let conditions = match id {
            "all" => vec![],
            _ => vec![Condition::header(&format!("x-user: {id}")).unwrap()],
        };
        Standing {
            port: self.port,
            claim: Claim {
                id: id.to_owned(),
                owner: self.owner.to_owned(),
                session: self.reverse.session(),
                conditions: Conditions::new(conditions).unwrap(),
                since: 1,
                mirror: false,
                fallback: false,
                strict: false,
                protocol: AppProtocol::Auto,
            },
            app: app.to_string().parse().unwrap(),
            log: true,
        }
    }

    /// Attaches [`Side::standing`].
    async fn claim(&self, id: &str, app: SocketAddr) {
        let standing = self.standing(id, app);
        self.reverse.attach(standing, None).await.unwrap();
    }

    /// The next event that is looked for; the others before it are passed over.
    async fn wait<T>(&mut self, mut which: impl FnMut(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if let Some(found) = which(&event) {
                    return found;
                }
            }
        };
        timeout(LONG, found).await.expect("the event does not come")
    }

    /// The events that have come, and those of the next moment.
    async fn all(&mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Ok(Some(event)) = timeout(Duration::from_millis(200), self.events.recv()).await {
            all.push(event);
        }
        all
    }

    /// Waits until kdev has so many tunnels.
    async fn left(&self, lines: usize) {
        let fewer = async {
            while self.wire.live() != lines {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let within = timeout(Duration::from_secs(2), fewer).await;
        assert!(within.is_ok(), "there are {} tunnels", self.wire.live());
    }

    /// The ids of the claims that each replica has.
    async fn known(&self) -> Vec<Vec<String>> {
        let ids = |tell| match tell {
            Tell::Seen { claims, .. } => claims.into_iter().map(|claim| claim.id).collect(),
            other => panic!("{other:?}"),
        };
        let seen = self.reverse.look(self.port).await;
        seen.into_iter().map(ids).collect()
    }
}

/// Who answers a request of this user.
async fn who(stage: &Stage, user: &str) -> String {
    let (status, answer) = stage.get("/", &[("x-user", user)]).await;
    match status {
        200 => server(&answer).to_owned(),
        _ => answer,
    }
}

/// The one of [`web`] that gave this answer.
fn server(answer: &str) -> &str {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.split(' ').next().unwrap()
}

/// A server that is no HTTP: it says who it is and what it was told, once that has ended.
async fn plain(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut told = Vec::new();
                socket.read_to_end(&mut told).await.unwrap();
                let told = String::from_utf8(told).unwrap();
                let _ = socket.write_all(format!("{name}: {told}").as_bytes()).await;
            });
        }
    });
    address
}
