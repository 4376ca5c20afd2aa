//! Intercepts without a command: until a signal.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;

use super::{Intercepts, Planned, Started};
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
    /// A signal that came before all were live.
    told: Option<u8>,
    ending: Ending,
    elapses: bool,
    _registration: Option<Registration>,
}

/// Why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By this signal.
    Signal(u8),
    /// By this signal before it was live, or by another one before all was given back.
    BrokenOff(u8),
    /// Its time was over.
    Elapsed,
    /// Others ended it, or the cluster did.
    Broken(String),
}

impl Alone {
    /// Opens a session and begins what is planned.
    ///
    /// # Errors
    /// When the cluster cannot be reached or one could not begin. A signal meanwhile is none: see
    /// [`Alone::is_live`].
    pub async fn start(config: &Config, plan: &Planned) -> anyhow::Result<Self> {
        let session = Session::open(config).await?;
        let mut ending = Ending::listen()?;
        let (intercepts, told) = match plan.start(&session, config, &mut ending).await {
            Ok(Started::Live(intercepts)) => (Some(intercepts), None),
            Ok(Started::Told(number, begun)) => (begun, Some(number)),
            Err(error) => {
                session.close(GRACE).await;
                return Err(error);
            }
        };
        let registration = session.register("intercept", Vec::new(), None);
        Ok(Self {
            session: Some(session),
            intercepts,
            told,
            ending,
            elapses: plan.terms.lasts.is_some(),
            _registration: registration,
        })
    }

    /// Whether it goes on until something ends it, rather than that it was told to end before.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.told.is_none()
    }

    /// Goes on until it ends. A second signal skips what is left of giving back.
    ///
    /// # Errors
    /// Never, but for what a caller asked for twice.
    pub async fn until_end(&mut self) -> anyhow::Result<End> {
        let session = self.session.take().context("it has ended before")?;
        let end = match (self.intercepts.take(), self.told) {
            (Some(intercepts), told) => self.follow(intercepts, told).await,
            (None, Some(number)) => End::BrokenOff(number),
            (None, None) => End::Elapsed,
        };
        session.close(GRACE).await;
        Ok(end)
    }

    async fn follow(&mut self, mut intercepts: Intercepts, told: Option<u8>) -> End {
        let number = match told {
            Some(number) => number,
            None => tokio::select! {
                reason = intercepts.ended() => {
                    intercepts.close(false).await;
                    return match reason {
                        Some(reason) => End::Broken(reason),
                        None if self.elapses => End::Elapsed,
                        None => End::Broken("it was broken off".to_owned()),
                    };
                }
                number = self.ending.asked() => number,
            },
        };
        match intercepts.give_back(&mut self.ending).await {
            true => End::Signal(number),
            false => End::BrokenOff(number),
        }
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
