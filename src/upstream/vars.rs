//! The proxy variables of an environment, and which of them a destination goes by.

use std::collections::BTreeMap;

use super::no_proxy::NoProxy;
use super::url::is_loopback;
use crate::addr::Target;

/// Where kdev keeps the values that it replaced in an environment: a JSON object.
pub const BEFORE: &str = "KDEV_ENV_BEFORE";

/// The proxy variables. In the environment upper case counts before lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// What a stream carries, which decides the variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// TLS, or anything that is not plain HTTP: `HTTPS_PROXY`, as for CONNECT.
    Stream,
    /// Plain HTTP requests: `HTTP_PROXY`.
    PlainHttp,
}

impl ProxyVars {
    /// The variables of this process, as they were when it started.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    /// Those of an environment. In a shell that uses kdev's own proxy, those that it had before:
    /// kdev's way to the API server must not lead through kdev.
    fn of(environment: impl Fn(&str) -> Option<String>) -> Self {
        let own = environment("KDEV_HTTP").map(|address| format!("http://{address}"));
        let before = environment(BEFORE)
            .filter(|_| own.is_some() && environment("https_proxy") == own)
            .and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(&text).ok());
        let value = |name: &String| match &before {
            Some(before) => before.get(name).cloned(),
            None => environment(name),
        };
        let var = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .filter_map(value)
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

    /// The proxy's URL for `target` and the variable that has it. As in Go, `localhost` and
    /// loopback addresses never have one, and `NO_PROXY` decides about the rest. `ALL_PROXY`
    /// comes last, as in curl (Go does not know it).
    #[must_use]
    pub fn choose(&self, target: &Target, carries: Carries) -> Option<(&str, &'static str)> {
        let (own, name) = match carries {
            Carries::Stream => (&self.https, "HTTPS_PROXY"),
            Carries::PlainHttp => (&self.http, "HTTP_PROXY"),
        };
        let (url, name) = match own.trim() {
            "" => (self.all.trim(), "ALL_PROXY"),
            own => (own, name),
        };
        let past =
            url.is_empty() || is_loopback(&target.host) || NoProxy::parse(&self.no).matches(target);
        (!past).then_some((url, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_goes_by_what_its_stream_carries() {
        let vars = ProxyVars {
            https: "http://s:1".into(),
            http: "http://h:1".into(),
            all: "socks5://a:1".into(),
            no: "10.0.0.0/8,.internal".into(),
        };
        let choose = |vars: &ProxyVars, target: &str, carries| {
            vars.choose(&target.parse().unwrap(), carries)
                .map(|(url, name)| format!("{url} {name}"))
        };
        let some = |text: &str| Some(text.to_owned());
        let (stream, plain) = (Carries::Stream, Carries::PlainHttp);
        assert_eq!(
            choose(&vars, "x.com:443", stream),
            some("http://s:1 HTTPS_PROXY")
        );
        assert_eq!(
            choose(&vars, "x.com:80", plain),
            some("http://h:1 HTTP_PROXY")
        );
        for past in [
            "10.1.1.1:443",
            "a.internal:443",
            "localhost:443",
            "127.0.0.9:443",
            "[::1]:443",
        ] {
            assert_eq!(choose(&vars, past, stream), None, "{past}");
        }
        let only = ProxyVars {
            all: "socks5://a:1".into(),
            ..ProxyVars::default()
        };
        assert_eq!(
            choose(&only, "x.com:80", plain),
            some("socks5://a:1 ALL_PROXY")
        );
        assert_eq!(choose(&ProxyVars::default(), "x.com:80", plain), None);
    }

    #[test]
    fn a_shell_that_uses_kdev_has_the_proxy_it_had_before() {
        let of = |pairs: &[(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|(n, _)| *n == name);
            ProxyVars::of(|name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        let shell = [
            ("https_proxy", "http://127.0.0.1:9"),
            ("HTTPS_PROXY", "http://127.0.0.1:9"),
            ("NO_PROXY", "localhost"),
            ("KDEV_HTTP", "127.0.0.1:9"),
            (BEFORE, r#"{"HTTPS_PROXY":"http://corp:3128"}"#),
        ];
        let vars = of(&shell);
        assert_eq!(
            (vars.https.as_str(), vars.no.as_str()),
            ("http://corp:3128", "")
        );
        // A proxy that was set since then counts.
        let mut changed = shell;
        changed[0].1 = "http://other:1";
        changed[1].1 = "http://other:1";
        assert_eq!(of(&changed).https, "http://other:1");
        // Where nothing was kept there is nothing to go back to.
        assert_eq!(of(&shell[..4]).https, "http://127.0.0.1:9");
    }
}
