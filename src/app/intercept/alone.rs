//! Intercepts without a command: until a signal.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;

use super::{Intercepts, Planned};
use crate::app::Session;
use crate::app::registry::Registration;
use crate::app::signals::Ending;
use crate::config::Config;

/// What stands beside the relay's tunnels may go at once.
const GRACE: Duration = Duration::ZERO;

/// A session that does nothing but intercept.
pub struct Alone {
    session: Option<Session>,
    intercepts: Option<Intercepts>,
    ending: Ending,
    elapses: bool,
    _registration: Option<Registration>,
}

/// Why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By this signal.
    Signal(u8),
    /// Its time was over.
    Elapsed,
    /// Others ended it, or the cluster did.
    Broken(String),
}

impl Alone {
    /// Opens a session and begins what is planned.
    ///
    /// # Errors
    /// When the cluster cannot be reached or one could not begin. A signal meanwhile ends it.
    pub async fn start(config: &Config, plan: &Planned) -> anyhow::Result<Self> {
        let session = Session::open(config).await?;
        let ending = Ending::listen()?;
        let started = plan.start(&session, config).await;
        let intercepts = match started {
            Ok(intercepts) => intercepts,
            Err(error) => {
                session.close(GRACE).await;
                return Err(error);
            }
        };
        let registration = session.register("intercept", Vec::new(), None);
        Ok(Self {
            session: Some(session),
            intercepts: Some(intercepts),
            ending,
            elapses: plan.terms.lasts.is_some(),
            _registration: registration,
        })
    }

    /// Goes on until it ends. A second signal skips what is left of giving back.
    ///
    /// # Errors
    /// Never, but for what a caller asked for twice.
    pub async fn until_end(&mut self) -> anyhow::Result<End> {
        let mut intercepts = self.intercepts.take().context("it has ended before")?;
        let end = tokio::select! {
            reason = intercepts.ended() => match reason {
                Some(reason) => End::Broken(reason),
                None if self.elapses => End::Elapsed,
                None => End::Broken("it was broken off".to_owned()),
            },
            number = self.ending.next() => {
                intercepts.stop();
                tokio::select! {
                    _ = intercepts.ended() => {}
                    _ = self.ending.next() => {}
                }
                End::Signal(number)
            }
        };
        intercepts.abandon().await;
        if let Some(session) = self.session.take() {
            session.close(GRACE).await;
        }
        Ok(end)
    }
}

/// A port of this laptop that nobody has at the moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}
