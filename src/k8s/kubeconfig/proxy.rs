//! The proxy on the way to the API server.
//!
//! kube matches `NO_PROXY` against the proxy's own address and lets it overrule `proxy-url`, so
//! the decision is made here, as kubectl makes it: `proxy-url` of the kubeconfig, else the
//! environment, which never proxies to this machine itself.

use hyper::Uri;

use super::KubeconfigError;
use crate::addr::Target;
use crate::upstream::{Carries, Chosen, Proxies};

/// Where a kubeconfig has a proxy.
const PROXY_URL: &str = "proxy-url of the kubeconfig";

/// The proxy for `server`, or none.
pub(super) fn choose(
    proxy_url: Option<&str>,
    proxies: &Proxies,
    server: &Uri,
) -> Result<Option<Chosen>, KubeconfigError> {
    let chosen = match proxy_url.filter(|url| !url.is_empty()) {
        Some(url) => proxies.named(url, PROXY_URL),
        None => {
            let Some((target, carries)) = target(server) else {
                // Whoever connects says what is wrong with it.
                return Ok(None);
            };
            proxies.choose(&target, carries)
        }
    };
    chosen.map_err(KubeconfigError::Proxy)
}

/// The server as a destination; none where it has no host.
pub(crate) fn target(server: &Uri) -> Option<(Target, Carries)> {
    let (port, carries) = match server.scheme_str() {
        Some("http") => (80, Carries::PlainHttp),
        _ => (443, Carries::Stream),
    };
    let host = server.host()?.parse().ok()?;
    let port = server.port_u16().unwrap_or(port);
    Some((Target::new(host, port), carries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ProxyVars;

    fn chosen(proxy_url: Option<&str>, vars: &ProxyVars, server: &'static str) -> Option<String> {
        let proxies = Proxies::new(vars.clone(), None);
        choose(proxy_url, &proxies, &Uri::from_static(server))
            .unwrap()
            .map(|c| format!("{} by {}", c.proxy.url(), c.from))
    }

    #[test]
    fn no_proxy_is_about_the_api_server() {
        let vars = ProxyVars {
            https: "http://proxy.corp:3128".into(),
            http: "http://plain.corp:1".into(),
            no: "10.0.0.0/8,.internal,proxy.corp,api.corp:6443".into(),
            ..Default::default()
        };
        let proxy = Some("http://proxy.corp:3128 by HTTPS_PROXY".to_owned());
        let plain = Some("http://plain.corp:1 by HTTP_PROXY".to_owned());
        assert_eq!(chosen(None, &vars, "https://api.example.com:6443"), proxy);
        assert_eq!(chosen(None, &vars, "https://api.corp"), proxy);
        assert_eq!(chosen(None, &vars, "http://api.example.com"), plain);
        for past in [
            "https://api.corp:6443",
            "https://10.1.2.3:6443",
            "https://api.internal",
            "https://127.0.0.1:6443",
            "https://localhost:6443",
            "https://[::1]:6443",
        ] {
            assert_eq!(chosen(None, &vars, past), None, "{past}");
        }
        assert_eq!(
            chosen(Some("socks5://127.0.0.1:1080"), &vars, "https://10.1.2.3"),
            Some("socks5://127.0.0.1:1080 by proxy-url of the kubeconfig".to_owned()),
            "the kubeconfig's own proxy-url overrules NO_PROXY, as in kubectl"
        );
    }

    #[test]
    fn unknown_schemes_are_refused() {
        let server = Uri::from_static("https://api.example.com");
        let proxies = Proxies::default();
        let error = choose(Some("ftp://u:secret@x"), &proxies, &server).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(error.to_string().contains("proxy-url"), "{error}");
    }
}
