//! What an error means to the user, and what to do.

use std::time::{Duration, SystemTime};

use crate::app::doctor::check::Check;
use crate::k8s::ClientError;
use crate::k8s::discovery::refuses_impersonation;
use crate::k8s::kubeconfig::Loaded;
use crate::upstream::ProxyError;

/// A time of minutes to years.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// The check that `error` makes fail.
pub(super) fn failure((id, title): (&str, &str), error: &ClientError, loaded: &Loaded) -> Check {
    let text = error.to_string();
    let fix = match error {
        ClientError::Kubeconfig(_) | ClientError::Credentials { .. } => {
            "log in again, or get a new kubeconfig".to_owned()
        }
        ClientError::Plugin(_) => match loaded.plugin() {
            Some(plugin) => format!("log in again; `{plugin}` by hand shows what it wants"),
            None => "log in again".to_owned(),
        },
        ClientError::Login(error) if error.is_passing() => {
            "can this machine reach the identity provider? HTTPS_PROXY and NO_PROXY decide about \
             its host too"
                .to_owned()
        }
        ClientError::Login(_) => {
            "log in again with the tool that wrote the kubeconfig, or get a new one".to_owned()
        }
        ClientError::Proxy { error, .. } => {
            let text = text.split("; ").next().unwrap_or(&text);
            return Check::fail(id, title, text).fix(proxy_fix(error));
        }
        ClientError::Unreachable { .. } if loaded.proxy().is_some() => {
            "is the proxy right? NO_PROXY with the server's host goes past it".to_owned()
        }
        ClientError::Unreachable { .. } => {
            "something accepts connections there and is no API server, or one that is overloaded: \
             `kubectl version` should say the same"
                .to_owned()
        }
        ClientError::Certificate {
            reason,
            fix,
            server,
        } => {
            let detail = format!("no trust between kdev and {server}: {reason}");
            return Check::fail(id, title, detail).fix(fix);
        }
        ClientError::Unauthorized { context, user, .. } => {
            return refused(id, title, context, user, loaded);
        }
        ClientError::Busy { .. } => {
            "other programs keep it busy, or its limits for this user are low: whoever runs the \
             cluster sees which (API priority and fairness)"
                .to_owned()
        }
        error if refuses_impersonation(error) => {
            "ask whoever runs the cluster for the right to impersonate, or leave --as and \
             --as-group away"
                .to_owned()
        }
        ClientError::Status { code: 500.., .. } => {
            "the API server is there and not well: tell whoever runs the cluster".to_owned()
        }
        ClientError::Status { .. } | ClientError::Answer { .. } => {
            "is `server` in the kubeconfig a Kubernetes API server? A login page of a proxy \
             answers like this"
                .to_owned()
        }
    };
    Check::fail(id, title, text).fix(fix)
}

/// What to do about a proxy.
pub(in crate::app::doctor) fn proxy_fix(error: &ProxyError) -> &'static str {
    match error {
        ProxyError::Url { .. } => "correct it: http://USER:PASSWORD@HOST:PORT",
        ProxyError::Unreachable { .. } | ProxyError::TimedOut { .. } => {
            "is the proxy's address right, and the VPN up? NO_PROXY with the destination's host \
             goes past it"
        }
        ProxyError::Protocol { .. } => {
            "correct the proxy's scheme and port: http://, https:// or socks5://"
        }
        ProxyError::LoginNeeded { .. } => {
            "put user and password into the proxy's URL (http://USER:PASSWORD@HOST:PORT), or name \
             a program that logs in with KDEV_PROXY_AUTH_HELPER"
        }
        ProxyError::LoginRefused { .. } => {
            "correct user and password; what is special in them is written %XX in a URL"
        }
        ProxyError::Helper { .. } => "run the helper by hand to see what it says",
        ProxyError::Refused { .. } | ProxyError::NotConnected { .. } => {
            "ask whoever runs the proxy to let it through, or go past it with NO_PROXY"
        }
        ProxyError::Loop { .. } => {
            "set the proxy variables to the proxy of your network, or unset them"
        }
    }
}

/// A 401, with the reason that the credentials themselves give.
fn refused(id: &str, title: &str, context: &str, user: &str, loaded: &Loaded) -> Check {
    let mut detail = format!(
        "the API server does not accept the credentials of user {user:?} (context {context:?})"
    );
    let ended = loaded
        .expires()
        .and_then(|end| SystemTime::now().duration_since(end).ok());
    if let Some(ago) = ended {
        detail.push_str(&format!(": they expired {} ago", span(ago)));
    }
    let fix = match loaded.plugin() {
        Some(plugin) => format!("log in again with what {plugin} belongs to"),
        None if ended.is_some() => "get a new kubeconfig, or a new token for it".to_owned(),
        None => "log in again, get a new kubeconfig, or choose another context".to_owned(),
    };
    Check::fail(id, title, detail).fix(fix)
}
