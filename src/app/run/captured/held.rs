//! A command whose connects wait for kdev, where it gets no network of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::{Host, Target};
use crate::app::named::Named;
use crate::app::registry::Lends;
use crate::app::{Note, Session, mine};
use crate::config::Config;
use crate::dial::{Notes, Way};
use crate::dns::{self, Resolvers};
use crate::proxy::{self, Access, Stats};
use crate::run::held::Hold;
use crate::task::Tasks;
use crate::upstream::Lent;

/// Where programs find their nameservers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Serves a command's connects by `session`.
///
/// # Errors
/// When the system does not allow what it takes.
pub(super) async fn serve(session: &Session, config: &Config, note: Note) -> anyhow::Result<Hold> {
    let sockets = dns::Sockets::bind(None).await?;
    let nameserver = sockets.address();
    dns::serve_inside(
        sockets,
        session.catalog.clone(),
        dns::Source::system(),
        session.inside().deciding(),
        &session.tasks,
    );
    let mut serving = proxy::Config::new(Access::SameUser { password: None });
    serving.stats = session.stats.clone();
    serving.refusals = session.refusals();
    let marker = mine::marker(session, config, note);
    let dialer = session.dialer_past_proxies().with_marker(marker);
    let router = dialer.clone();
    let is_ours: proxy::IsOurs = Arc::new(move |target, protocol| {
        let router = router.clone();
        Box::pin(async move {
            let mut notes = Notes::off();
            let decision = router.decide_for(&target, protocol, &mut notes).await;
            !matches!(decision.way, Way::Laptop)
        })
    });
    let (hold, calls) = Hold::new()?;
    let held = proxy::Held {
        calls,
        is_ours,
        nameserver,
        is_nameserver: Arc::new(is_nameserver),
    };
    let dialer = Named::new(dialer, session.catalog.clone());
    held.serve(dialer, serving, &session.tasks);
    Ok(hold)
}

/// Serves them by the session of another command, which decides what is the cluster's.
///
/// # Errors
/// As [`serve`].
pub(super) fn serve_lent(
    nameserver: SocketAddr,
    lends: &Lends,
    stats: Arc<Stats>,
    tasks: &Tasks,
) -> anyhow::Result<Hold> {
    let mut serving = proxy::Config::new(Access::SameUser { password: None });
    serving.stats = stats;
    let (hold, calls) = Hold::new()?;
    let held = proxy::Held {
        calls,
        is_ours: Arc::new(|_, _| Box::pin(std::future::ready(true))),
        nameserver,
        is_nameserver: Arc::new(is_nameserver),
    };
    held.serve(Lent::new(lends.proxy), serving, tasks);
    Ok(hold)
}

/// Whether programs of this machine ask there for names, as of now.
fn is_nameserver(target: &Target) -> bool {
    let text = std::fs::read(RESOLV_CONF).unwrap_or_default();
    let servers = Resolvers::parse(&text).servers;
    servers.iter().any(|server| {
        target.port == server.port() && target.host == Host::Ip(server.ip().to_canonical())
    })
}
