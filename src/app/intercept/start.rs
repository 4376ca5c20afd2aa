//! Beginning, unless a signal comes.

use std::pin::pin;

use futures_util::FutureExt as _;

use super::{Event, Intercepts, Planned};
use crate::app::Session;
use crate::app::signals::Ending;
use crate::config::Config;
use crate::intercept::OnRecord;

/// What came of beginning.
pub(in crate::app) enum Started {
    /// All are live.
    Live(Intercepts),
    /// This signal came; what is live is to be given back.
    Told(u8, Option<Intercepts>),
}

impl Planned {
    /// Begins it. A signal ends that: at once as long as nothing of it is in the cluster, which may be
    /// long where the relay's pods are replaced first; else as soon as all that was begun can be given
    /// back, and a second one leaves that to `kdev restore`.
    ///
    /// # Errors
    /// Why one could not begin; none has then.
    pub(in crate::app) async fn start(
        &self,
        session: &Session,
        config: &Config,
        ending: &mut Ending,
    ) -> anyhow::Result<Started> {
        let on_record = OnRecord::default();
        let mut starting = pin!(Intercepts::start(session, config, self, on_record.clone()));
        let number = tokio::select! {
            biased;
            started = &mut starting => {
                let intercepts = started?;
                // It may have come at the same moment.
                return Ok(match ending.next().now_or_never() {
                    None => Started::Live(intercepts),
                    Some(number) => Started::Told(number, Some(intercepts)),
                });
            }
            number = ending.next() => number,
        };
        if !on_record.may_be() {
            return Ok(Started::Told(number, None));
        }
        (self.tell)(Event::Note(
            "it ends as soon as what was begun can be given back; another Ctrl-C leaves that to \
             `kdev restore`"
                .to_owned(),
        ));
        tokio::select! {
            // One that failed was given back.
            started = starting => Ok(Started::Told(number, started.ok())),
            _ = ending.next() => Ok(Started::Told(number, None)),
        }
    }
}
