//! Every setting there is.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{
    Fallback, Kind, LogFormat, MineHeader, Project, Setting, Value, Via, capture, objects,
};
use crate::addr;
use crate::k8s::relay::Carrier;
use crate::rule::LONGEST_OWNER;
use crate::run::environment::AllProxy;
use crate::upstream::Helper;

/// The commands that have a setting's flag.
pub mod on {
    /// Every command.
    pub const ALL: u8 = 1;
    /// `kdev run`.
    pub const RUN: u8 = 2;
    /// `kdev connect`.
    pub const CONNECT: u8 = 4;
    /// `kdev env`, which looks for a `kdev connect` with the same settings.
    pub const ENV: u8 = 8;
    /// `kdev forward`.
    pub const FORWARD: u8 = 16;
    /// `kdev resolve`.
    pub const RESOLVE: u8 = 32;
    /// `kdev intercept`.
    pub const INTERCEPT: u8 = 64;
    /// `kdev install` and `kdev upgrade`.
    pub const INSTALL: u8 = 128;
}

const NO_FLAG_NEEDED: &str = "a free port of 127.0.0.1";

/// The settings. A setting that runs a program, opens this machine to others, reads files of the
/// user's or says who the user is must not be a project's to say.
pub static SETTINGS: &[Setting] = &[
    Setting {
        key: "kubeconfig",
        short: None,
        value_name: "FILE",
        kind: Kind::Path,
        help: "Kubeconfig file instead of $KUBECONFIG or ~/.kube/config",
        fallback: Fallback::Means("$KUBECONFIG or ~/.kube/config"),
        project: Project::MayNot(
            "a kubeconfig can run programs and send files of yours to a server of its choice",
        ),
        on: on::ALL,
        set: |config, value| {
            config.kube.kubeconfig = Some(value.text().into());
            Ok(())
        },
    },
    Setting {
        key: "context",
        short: None,
        value_name: "NAME",
        kind: Kind::Text,
        help: "Context of the kubeconfig to use",
        fallback: Fallback::Means("the kubeconfig's current context"),
        project: Project::May,
        on: on::ALL,
        set: |config, value| {
            config.kube.context = Some(value.text().to_owned());
            Ok(())
        },
    },
    Setting {
        key: "namespace",
        short: Some('n'),
        value_name: "NAME",
        kind: Kind::Text,
        help: "Namespace to use, also for bare Service names",
        fallback: Fallback::Means("the context's namespace"),
        project: Project::May,
        on: on::ALL,
        set: |config, value| {
            // `-n "$UNSET"` means what it means to kubectl: the context's own.
            if !value.text().is_empty() {
                addr::namespace(value.text()).map_err(|error| error.to_string())?;
            }
            config.kube.namespace = Some(value.text().to_owned());
            Ok(())
        },
    },
    Setting {
        key: "as",
        short: None,
        value_name: "USER",
        kind: Kind::Text,
        help: "User to impersonate",
        fallback: Fallback::Means("the context's user"),
        project: Project::MayNot(WHO),
        on: on::ALL,
        set: |config, value| {
            config.kube.as_user = Some(value.text().to_owned());
            Ok(())
        },
    },
    Setting {
        key: "as-group",
        short: None,
        value_name: "GROUP",
        kind: Kind::List,
        help: "Group to impersonate; repeatable",
        fallback: Fallback::Means("none"),
        project: Project::MayNot(WHO),
        on: on::ALL,
        set: |config, value| {
            config.kube.as_groups = value.list().to_vec();
            Ok(())
        },
    },
    Setting {
        key: "via",
        short: None,
        value_name: "WAY",
        kind: Kind::Choice(&[
            (
                "auto",
                "the relay where it is installed and usable, else direct",
            ),
            (
                "direct",
                "port-forwards to the pods; nothing is installed in the cluster",
            ),
            (
                "relay",
                "the relay of the namespace only, see `kdev install`",
            ),
        ]),
        help: "How connections reach the cluster",
        fallback: Fallback::Is("auto"),
        project: Project::May,
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV | on::FORWARD | on::RESOLVE,
        set: |config, value| {
            config.via = match value.text() {
                "direct" => Via::Direct,
                "relay" => Via::Relay,
                _ => Via::Auto,
            };
            Ok(())
        },
    },
    Setting {
        key: "carrier",
        short: None,
        value_name: "CARRIER",
        kind: Kind::Choice(&[
            ("auto", "the best that works"),
            ("spdy", "a SPDY stream of a port-forward"),
            ("websocket", "a port-forward over v4.channel.k8s.io"),
            (
                "pods-proxy",
                "an upgrade through pods/proxy; takes `kdev install --pods-proxy`",
            ),
        ]),
        help: "Transport of the tunnels to the relay",
        fallback: Fallback::Is("auto"),
        project: Project::May,
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV | on::FORWARD,
        set: |config, value| {
            config.carrier = Carrier::from_id(value.text());
            Ok(())
        },
    },
    Setting {
        key: "proxy-listen",
        short: None,
        value_name: "[ADDR:]PORT",
        kind: Kind::Address,
        help: "Address of the proxy; in a file only that of `kdev connect`",
        fallback: Fallback::Means(NO_FLAG_NEEDED),
        project: Project::May,
        on: on::RUN | on::INTERCEPT | on::CONNECT,
        set: |config, value| {
            let address = address(value)?;
            if !address.ip().is_loopback() {
                return Err(format!(
                    "the proxy serves this machine's user only, so it takes an address of \
                     loopback such as 127.0.0.1:1080, not {address}; containers get a listener \
                     of their own"
                ));
            }
            config.proxy_listen = Some(address);
            Ok(())
        },
    },
    Setting {
        key: "dns-listen",
        short: None,
        value_name: "[ADDR:]PORT",
        kind: Kind::Address,
        help: "Address of the DNS server, UDP and TCP",
        fallback: Fallback::Means(NO_FLAG_NEEDED),
        project: Project::MayNot("it can show the cluster's names to others in your network"),
        on: on::CONNECT,
        set: |config, value| {
            let address = address(value)?;
            if address.ip().is_unspecified() {
                // A datagram's answer would leave from an address that it was not sent to.
                return Err(format!(
                    "the DNS server takes one address of this machine, not {address}"
                ));
            }
            config.dns_listen = Some(address);
            Ok(())
        },
    },
    Setting {
        key: "own-session",
        short: None,
        value_name: "BOOL",
        kind: Kind::Switch,
        help: "Do not use the session of a running `kdev connect`",
        fallback: Fallback::Is("false"),
        project: Project::May,
        on: on::RUN,
        set: |config, value| {
            config.own_session = value.is_on();
            Ok(())
        },
    },
    Setting {
        key: "all-proxy",
        short: None,
        value_name: "SCHEME",
        kind: Kind::Choice(&[
            ("http", "the HTTP proxy, as in HTTP_PROXY"),
            (
                "socks5h",
                "SOCKS5, for programs that take it from there only; httpx then needs socksio",
            ),
        ]),
        help: "Scheme of ALL_PROXY; SOCKS is always in KDEV_SOCKS_PROXY",
        fallback: Fallback::Is("http"),
        project: Project::May,
        on: on::RUN | on::INTERCEPT | on::ENV,
        set: |config, value| {
            config.all_proxy = match value.text() {
                "socks5h" => AllProxy::Socks,
                _ => AllProxy::Http,
            };
            Ok(())
        },
    },
    Setting {
        key: "cluster-domain",
        short: None,
        value_name: "DOMAIN",
        kind: Kind::Text,
        help: "DNS domain of the cluster",
        fallback: Fallback::Means("cluster.local, and any other before which a Service stands"),
        project: Project::MayTold,
        on: on::ALL,
        set: |config, value| {
            let domain = value.text().parse().map_err(|e| format!("{e}"))?;
            config.cluster_domain = domain;
            Ok(())
        },
    },
    Setting {
        key: "also-proxy",
        short: None,
        value_name: "RULE",
        kind: Kind::List,
        help: "Send this into the cluster, too: a name, .suffix, address or CIDR, each with an \
               optional :PORT; repeatable",
        fallback: Fallback::Means("what the cluster has"),
        project: Project::MayTold,
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV | on::FORWARD | on::RESOLVE,
        set: |config, value| {
            config.also_proxy = value.list().to_vec();
            config.read_routes()
        },
    },
    Setting {
        key: "never-proxy",
        short: None,
        value_name: "RULE",
        kind: Kind::List,
        help: "Dial this from the laptop even where the cluster has it, unless a more specific \
               --also-proxy says otherwise; repeatable",
        fallback: Fallback::Means("what the cluster has not"),
        project: Project::May,
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV | on::FORWARD | on::RESOLVE,
        set: |config, value| {
            config.never_proxy = value.list().to_vec();
            config.read_routes()
        },
    },
    Setting {
        key: "resolve-in-cluster",
        short: None,
        value_name: "DOMAIN",
        kind: Kind::List,
        help: "Send names of this domain through the relay, for the cluster's DNS alone to look \
               up; repeatable",
        fallback: Fallback::Means("what the cluster has"),
        project: Project::MayTold,
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV | on::FORWARD | on::RESOLVE,
        set: |config, value| {
            config.resolve_in_cluster = value.list().to_vec();
            config.read_routes()
        },
    },
    Setting {
        key: "host-loopback",
        short: None,
        value_name: "BOOL",
        kind: Kind::Switch,
        help: "Let containers reach this laptop's own loopback through kdev",
        fallback: Fallback::Is("false"),
        project: Project::MayNot(
            "it lets a container reach what listens on this machine for you alone",
        ),
        on: on::RUN | on::INTERCEPT,
        set: |config, value| {
            config.host_loopback = value.is_on();
            Ok(())
        },
    },
    Setting {
        key: "owner",
        short: None,
        value_name: "NAME",
        kind: Kind::Text,
        help: "Name that your intercepts show; --mine means the part before its @",
        fallback: Fallback::Means("USER@HOST"),
        project: Project::MayNot("it says who you are"),
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV,
        set: |config, value| {
            let text = value.text().trim();
            if text.is_empty() || text.len() > LONGEST_OWNER || text.contains(char::is_control) {
                return Err(format!(
                    "{text:?} is not a name: one line of at most {LONGEST_OWNER} bytes"
                ));
            }
            config.owner = Some(text.to_owned());
            Ok(())
        },
    },
    capture::CAPTURE,
    Setting {
        key: "mine-header",
        short: None,
        value_name: "WHEN",
        kind: Kind::Choice(&[
            (
                "on",
                "they get baggage kdev=YOU, so that a browser needs no extension",
            ),
            ("off", "they are left as programs send them"),
        ]),
        help: "What the proxy does with HTTP requests to Services that you intercept with --mine",
        fallback: Fallback::Is("on"),
        project: Project::May,
        on: on::RUN | on::INTERCEPT | on::CONNECT | on::ENV,
        set: |config, value| {
            config.mine_header = match value.text() {
                "off" => MineHeader::Off,
                _ => MineHeader::On,
            };
            Ok(())
        },
    },
    objects::LABEL,
    objects::ANNOTATION,
    objects::CPU_REQUEST,
    objects::CPU_LIMIT,
    objects::MEMORY_REQUEST,
    objects::MEMORY_LIMIT,
    objects::NODE_SELECTOR,
    objects::TOLERATION,
    objects::PRIORITY_CLASS,
    objects::RUNTIME_CLASS,
    objects::IMAGE_PULL_SECRET,
    Setting {
        key: "proxy-auth-helper",
        short: None,
        value_name: "COMMAND",
        kind: Kind::Text,
        help: "Program that prints a Proxy-Authorization value for the corporate proxy",
        fallback: Fallback::Means("user and password of the proxy's URL"),
        project: Project::MayNot("it is a program that runs on this machine"),
        on: on::ALL,
        set: |config, value| {
            config.proxy_auth_helper = Helper::new(value.text());
            Ok(())
        },
    },
    Setting {
        key: "login-timeout",
        short: None,
        value_name: "SECONDS",
        kind: Kind::Text,
        help: "How long a credential plugin may take, with a login in the browser",
        fallback: Fallback::Means("60, or 300 where the plugin may ask on the terminal"),
        project: Project::May,
        on: on::ALL,
        set: |config, value| {
            let text = value.text();
            let seconds = text.parse::<u64>().ok().filter(|s| (1..=3600).contains(s));
            let seconds = seconds
                .ok_or_else(|| format!("{text:?} is no number of seconds from 1 to 3600"))?;
            config.login_timeout = Some(Duration::from_secs(seconds));
            Ok(())
        },
    },
    Setting {
        key: "log-format",
        short: None,
        value_name: "FORM",
        kind: Kind::Choice(&[("text", "sentences"), ("json", "an object per line")]),
        help: "Format of the log on standard error",
        fallback: Fallback::Is("text"),
        project: Project::May,
        on: on::ALL,
        set: |config, value| {
            config.log_format = match value.text() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            };
            Ok(())
        },
    },
];

const WHO: &str = "who you are to the cluster is yours to say";

/// The setting of a name.
#[must_use]
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// `1080`, `127.0.0.1:1080` or `localhost:1080`.
fn address(value: &Value) -> Result<SocketAddr, String> {
    let text = value.text();
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        format!("{text:?} is neither a port nor an address and a port such as 127.0.0.1:1080")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_default_is_a_value_and_every_name_is_there_once() {
        for setting in SETTINGS {
            if let Fallback::Is(text) = setting.fallback {
                setting.read(text).unwrap();
            }
            let same = SETTINGS.iter().filter(|s| s.key == setting.key).count();
            assert_eq!(same, 1, "{}", setting.key);
        }
    }

    #[test]
    fn listen_addresses_as_users_write_them() {
        let listen = setting("proxy-listen").unwrap();
        let read = |text: &str| {
            let mut config = Config::default();
            (listen.set)(&mut config, &Value::Text(text.to_owned()))?;
            Ok::<_, String>(config.proxy_listen.unwrap().to_string())
        };
        for text in ["1080", "127.0.0.1:1080", "localhost:1080"] {
            assert_eq!(read(text).unwrap(), "127.0.0.1:1080", "{text}");
        }
        assert_eq!(read("[::1]:1080").unwrap(), "[::1]:1080");
        assert!(read("somewhere:1080").is_err());
        let outside = read("0.0.0.0:1080").unwrap_err();
        assert!(outside.contains("loopback"), "{outside}");
    }
}
