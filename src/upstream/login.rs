//! The login to one proxy: what is sent, what is asked for when that is refused, and what is
//! remembered, so that nobody is asked twice and no account gets locked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::REFUSED_PAUSE;
use super::error::ProxyError;
use super::helper::{Conversation, Helper};
use super::url::ProxyUrl;

/// Schemes whose answers are good for one connection or one request only.
const BOUND: [&str; 4] = ["negotiate", "ntlm", "kerberos", "digest"];

/// The login to one proxy.
#[derive(Debug)]
pub(super) struct Login {
    proxy: ProxyUrl,
    helper: Option<Helper>,
    state: Mutex<State>,
    /// Held while a helper is asked: the next who asks may find the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// What the helper gave and may be sent again.
    kept: Option<String>,
    /// When the URL's own login was refused last.
    own_refused: Option<Instant>,
    /// The last failure and its time.
    failed: Option<(Instant, ProxyError)>,
}

/// The helper of one connection, while that is being opened.
#[derive(Default)]
pub(super) struct Talk(Option<Conversation>);

impl Login {
    pub(super) fn new(proxy: ProxyUrl, helper: Option<Helper>) -> Self {
        Self {
            proxy,
            helper,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The `Proxy-Authorization` to begin with, if any.
    ///
    /// # Errors
    /// When a login was refused a moment ago.
    pub(super) fn known(&self) -> Result<Option<String>, ProxyError> {
        let state = self.state();
        if let Some((when, error)) = &state.failed
            && when.elapsed() < REFUSED_PAUSE
        {
            return Err(error.clone());
        }
        let refused = state.own_refused;
        let refused = refused.is_some_and(|when| when.elapsed() < REFUSED_PAUSE);
        let own = self.own().filter(|_| !refused);
        Ok(state.kept.clone().or(own))
    }

    /// Whether a helper would have to be asked before anything can be sent.
    pub(super) fn is_unknown(&self) -> bool {
        self.helper.is_some() && matches!(self.known(), Ok(None))
    }

    /// What to send after a 407 to `sent`.
    pub(super) async fn next(
        &self,
        talk: &mut Talk,
        sent: Option<&str>,
        challenges: &[String],
    ) -> Result<String, ProxyError> {
        let result = self.ask(talk, sent, challenges).await;
        if let Err(error) = &result {
            self.state().failed = Some((Instant::now(), error.clone()));
        }
        result
    }

    async fn ask(
        &self,
        talk: &mut Talk,
        sent: Option<&str>,
        challenges: &[String],
    ) -> Result<String, ProxyError> {
        self.refused(sent);
        let Some(helper) = &self.helper else {
            return Err(self.no_login(challenges));
        };
        let failed = |reason: String| ProxyError::Helper {
            proxy: self.proxy.to_string(),
            reason,
            command: helper.command().to_owned(),
        };
        let _asking = self.asking.lock().await;
        if talk.0.is_none()
            && let Some(kept) = self.known()?
        {
            return Ok(kept);
        }
        let first = talk.0.is_none();
        let conversation = match &mut talk.0 {
            Some(conversation) => conversation,
            none => none.insert(helper.start(&self.proxy, challenges).map_err(failed)?),
        };
        match conversation.ask(&self.proxy, challenges).await {
            Ok(value) => {
                if first && !is_bound(&value) {
                    self.state().kept = Some(value.clone());
                }
                Ok(value)
            }
            Err(reason) if first => Err(failed(reason)),
            // It had said all it had to say.
            Err(_) => Err(self.no_login(challenges)),
        }
    }

    /// Why a 407 is the end.
    pub(super) fn no_login(&self, challenges: &[String]) -> ProxyError {
        let (proxy, methods) = (self.proxy.to_string(), challenges.to_vec());
        let who = match (&self.helper, self.proxy.user()) {
            (Some(_), _) => "the login that the helper gave".to_owned(),
            (None, Some(user)) => format!("user {user:?} with the password of its URL"),
            (None, None) => return ProxyError::LoginNeeded { proxy, methods },
        };
        ProxyError::LoginRefused {
            proxy,
            who,
            methods,
        }
    }

    /// Forgets what the proxy does not accept any more.
    pub(super) fn refused(&self, sent: Option<&str>) {
        let Some(sent) = sent else { return };
        let mut state = self.state();
        if state.kept.as_deref() == Some(sent) {
            state.kept = None;
        } else if self.own().as_deref() == Some(sent) {
            state.own_refused = Some(Instant::now());
        }
    }

    /// The proxy let a connection through, or refused it for another reason than the login.
    pub(super) fn accepted(&self) {
        self.state().failed = None;
    }

    /// The URL's own login, as Basic (RFC 7617, in UTF-8).
    fn own(&self) -> Option<String> {
        let (user, password) = self.proxy.login.as_ref()?;
        let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
        Some(format!("Basic {pair}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole when the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a `Proxy-Authorization` is good for one connection or request only.
fn is_bound(value: &str) -> bool {
    let scheme = value.split(' ').next().unwrap_or_default();
    BOUND.iter().any(|bound| scheme.eq_ignore_ascii_case(bound))
}
