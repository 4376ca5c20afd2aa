//! Beginning, unless a signal comes.

use std::pin::pin;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{Intercepts, Planned, Record};
use crate::app::Session;
use crate::app::signals::Ending;
use crate::config::Config;

/// What came of beginning.
pub(in crate::app) enum Started {
    /// All are live.
    Live(Intercepts),
    /// This signal came; what is live is to be given back.
    Told(u8, Option<Intercepts>),
}

impl Planned {
    /// Begins it. A signal ends that: at once as long as nothing of it is in the cluster, which may be
    /// long where the relay's pods are replaced first; else nothing more begins, and all that was begun
    /// is given back, which a second one leaves to `kdev restore`.
    ///
    /// # Errors
    /// Why one could not begin; none has then.
    pub(in crate::app) async fn start(
        &self,
        session: &Session,
        config: &Config,
        ending: &mut Ending,
    ) -> anyhow::Result<Started> {
        let record = Record::new(session, config, self);
        let mut starting = pin!(Intercepts::start(session, config, self, record.clone()));
        let number = tokio::select! {
            biased;
            started = &mut starting => {
                let intercepts = match started {
                    Ok(intercepts) => intercepts,
                    Err(error) => {
                        record.leave().await;
                        return Err(error);
                    }
                };
                // It may have come at the same moment.
                return Ok(match ending.asked().now_or_never() {
                    None => Started::Live(intercepts),
                    Some(number) => Started::Told(number, Some(intercepts)),
                });
            }
            number = ending.asked() => number,
        };
        if !record.on_record.may_be() {
            return Ok(Started::Told(number, None));
        }
        record.told_to_end.cancel();
        record.note(
            "it ends as soon as what was begun can be given back; another Ctrl-C leaves that to \
             `kdev restore`"
                .to_owned(),
        );
        tokio::select! {
            started = starting => {
                if started.is_err() {
                    record.leave().await;
                }
                // One that failed was given back, or why not was said.
                Ok(Started::Told(number, started.ok()))
            }
            () = ending.again(Instant::now()) => {
                record.leave().await;
                Ok(Started::Told(number, None))
            }
        }
    }
}
