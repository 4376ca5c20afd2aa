//! Intercepts without a command: until a signal.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;

use super::{Intercepts, Over, Planned, Started};
use crate::app::Session;
use crate::app::registry::Registration;
use crate::app::signals::Ending;
use crate::config::Config;

/// What stands beside the relay's tunnels may go at once.
const GRACE: Duration = Duration::ZERO;

/// A session that does nothing but intercept.
pub struct Alone {
    session: Session,
    intercepts: Option<Intercepts>,
    /// A signal that came before all were live.
    told: Option<u8>,
    /// Whether they have ended by themselves.
    over: bool,
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
    /// Its owner ended it from another terminal, which this says.
    Left(String),
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
            session,
            intercepts,
            told,
            over: false,
            ending,
            elapses: plan.terms.lasts.is_some(),
            _registration: registration,
        })
    }

    /// Whether it was live, rather than that it was told to end before.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let begun = self.intercepts.as_ref();
        self.told.is_none() || begun.is_some_and(Intercepts::were_live)
    }

    /// Goes on until something ends it, and gives the reason.
    pub async fn ended(&mut self) -> End {
        let Some(intercepts) = &mut self.intercepts else {
            return self.told.map_or(End::Elapsed, End::Signal);
        };
        if let Some(number) = self.told {
            return End::Signal(number);
        }
        tokio::select! {
            reason = intercepts.ended() => {
                self.over = true;
                match reason {
                    Some(Over::Left(how)) => End::Left(how),
                    Some(Over::Broken(reason)) => End::Broken(reason),
                    None if self.elapses => End::Elapsed,
                    None => End::Broken("it was broken off".to_owned()),
                }
            }
            number = self.ending.asked() => {
                self.told = Some(number);
                End::Signal(number)
            }
        }
    }

    /// Gives back what is left, and ends the session; whether there was something, and that came to its
    /// end. A second signal skips what is left of giving back.
    pub async fn close(mut self) -> bool {
        let in_order = match self.intercepts {
            Some(intercepts) if self.over => {
                intercepts.close().await;
                true
            }
            Some(intercepts) => intercepts.give_back(&mut self.ending).await,
            None => false,
        };
        self.session.close(GRACE).await;
        in_order
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
