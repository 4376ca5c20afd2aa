//! The proxy on the way to the API server.
//!
//! kube matches `NO_PROXY` against the proxy's own address and lets it overrule `proxy-url`, so
//! the decision is made here, as kubectl makes it: `proxy-url` of the kubeconfig, else the
//! environment, which never proxies to this machine itself.

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::KubeconfigError;

/// The proxy variables of an environment, upper case before lower case.
#[derive(Clone, Debug, Default)]
pub struct ProxyVars {
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `HTTP_PROXY`.
    pub http: String,
    /// `ALL_PROXY`.
    pub all: String,
    /// `NO_PROXY`.
    pub no: String,
}

impl ProxyVars {
    pub(super) fn of_process() -> Self {
        let var = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|value| !value.is_empty())
                .unwrap_or_default()
        };
        Self {
            https: var("HTTPS_PROXY"),
            http: var("HTTP_PROXY"),
            all: var("ALL_PROXY"),
            no: var("NO_PROXY"),
        }
    }
}

/// The proxy for `server`, or none.
pub(super) fn choose(
    proxy_url: Option<&str>,
    vars: &ProxyVars,
    server: &Uri,
) -> Result<Option<Intercept>, KubeconfigError> {
    let intercept = match proxy_url.filter(|url| !url.is_empty()) {
        Some(url) => {
            let matcher = Matcher::builder().all(url.to_owned()).build();
            let Some(intercept) = matcher.intercept(server) else {
                return Err(KubeconfigError::Proxy {
                    url: without_password(url),
                });
            };
            Some(intercept)
        }
        None if is_own(server) => None,
        None => Matcher::builder()
            .https(vars.https.clone())
            .http(vars.http.clone())
            .all(vars.all.clone())
            .no(vars.no.clone())
            .build()
            .intercept(server),
    };
    if let Some(intercept) = &intercept
        && !matches!(
            intercept.uri().scheme_str(),
            Some("http" | "https" | "socks5" | "socks5h")
        )
    {
        return Err(KubeconfigError::Proxy {
            url: intercept.uri().to_string(),
        });
    }
    Ok(intercept)
}

/// Whether `server` is this machine.
fn is_own(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The URL as it may be shown.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(proxy_url: Option<&str>, vars: &ProxyVars, server: &'static str) -> Option<String> {
        choose(proxy_url, vars, &Uri::from_static(server))
            .unwrap()
            .map(|i| i.uri().to_string())
    }

    #[test]
    fn no_proxy_is_about_the_api_server() {
        let vars = ProxyVars {
            https: "http://proxy.corp:3128".into(),
            no: "10.0.0.0/8,.internal,proxy.corp".into(),
            ..Default::default()
        };
        let proxy = Some("http://proxy.corp:3128/".to_owned());
        assert_eq!(chosen(None, &vars, "https://api.example.com:6443"), proxy);
        assert_eq!(chosen(None, &vars, "https://10.1.2.3:6443"), None);
        assert_eq!(chosen(None, &vars, "https://api.internal"), None);
        assert_eq!(chosen(None, &vars, "https://127.0.0.1:6443"), None);
        assert_eq!(
            chosen(Some("socks5://127.0.0.1:1080"), &vars, "https://10.1.2.3"),
            Some("socks5://127.0.0.1:1080/".to_owned()),
            "the kubeconfig's own proxy-url overrules NO_PROXY, as in kubectl"
        );
    }

    #[test]
    fn all_proxy_counts_last_and_unknown_schemes_are_refused() {
        let vars = ProxyVars {
            all: "socks5h://127.0.0.1:1080".into(),
            ..Default::default()
        };
        assert_eq!(
            chosen(None, &vars, "https://api.example.com"),
            Some("socks5h://127.0.0.1:1080/".to_owned())
        );
        let server = Uri::from_static("https://api.example.com");
        let error = choose(Some("ftp://u:secret@x"), &vars, &server).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
