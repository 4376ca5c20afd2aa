//! `kdev resolve`: where a dial would go, and why. It asks what a dial asks.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::Session;
use super::forward::{Named, PortName, Spec, named_port};
use crate::addr::{Host, Namespaced, Protocol, Target, split_port};
use crate::config::Config;
use crate::dial::{self, Decision, Endpoints, Notes, Resolve as _, Way};
use crate::upstream::Carries;

/// How long the first lists may take before what is there by then must do.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for a tunnel to the relay, where there is one: what is said shall be what a
/// session would do that has begun.
const FIRST_TUNNEL: Duration = Duration::from_secs(3);
/// The port that is asked for where neither the user nor a Service names one.
const ANY_PORT: u16 = 80;

/// What a user asks about: `NAME[:PORT][/udp]`, the port by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    host: Host,
    port: Option<PortName>,
    protocol: Protocol,
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            let [spec] = &Spec::read(&[text.to_owned()])?[..] else {
                return Err(format!("{text:?} is not one URL"));
            };
            return match &spec.what {
                Named::Host(host) => Ok(Self {
                    host: host.clone(),
                    port: spec.port.clone(),
                    protocol: spec.protocol,
                }),
                other => Err(format!("{other} is not a host")),
            };
        }
        let (text, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((text, "tcp" | "TCP")) => (text, Protocol::Tcp),
            Some((text, "udp" | "UDP")) => (text, Protocol::Udp),
            Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
        };
        let (host, port) = split_port(text);
        let port = match port {
            None => None,
            Some(text) => Some(text.parse().map_err(|()| {
                format!("{text:?} is neither a port from 1 to 65535 nor the name of one")
            })?),
        };
        Ok(Self {
            host: host.parse().map_err(|e| format!("{e}"))?,
            port,
            protocol,
        })
    }
}

/// Where a dial would go.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// What was asked for.
    pub asked: String,
    /// Where it leads after all aliases.
    pub target: String,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Which way.
    pub decision: Direction,
    /// How it gets into the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Carrier>,
    /// What the relay would dial, one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<String>,
    /// Whether there is somebody to dial: a ready pod, or an address of the laptop's network.
    pub reachable: bool,
    /// The Service, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The pods behind it.
    pub pods: Vec<Pod>,
    /// What this machine resolves it to, where it is not the cluster's.
    pub addresses: Vec<String>,
    /// The corporate proxy that resolves and dials it, where it goes through one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The rule of the user's that decided, with its setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The ExternalName Services that were followed.
    pub aliases: Vec<String>,
    /// Why it is not reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it came to that.
    pub why: Vec<String>,
}

/// Which way a dial goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the cluster.
    Cluster,
    /// From this machine.
    Laptop,
    /// None.
    Failed,
}

/// What carries a stream into the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The relay.
    Relay,
    /// Port-forward, straight to a pod.
    PortForward,
}

impl Carrier {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::PortForward => "port-forward",
        }
    }
}

/// A Service.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `ClusterIP`, `headless` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its own addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Its ports, as `name 80/TCP -> 8080`.
    pub ports: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug, Serialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// The port in it that would be dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it would be dialled.
    pub ready: bool,
}

/// Asks.
///
/// # Errors
/// When the cluster cannot be reached, or no Service has a port of the name.
pub async fn resolve(config: &Config, question: &Question) -> anyhow::Result<Answer> {
    let session = Session::open(config).await?;
    let answer = ask(&session, question).await;
    session.close(Duration::ZERO).await;
    answer
}

async fn ask(session: &Session, question: &Question) -> anyhow::Result<Answer> {
    let mut notes = Notes::on();
    if tokio::time::timeout(PATIENCE, session.catalog.synced())
        .await
        .is_err()
    {
        notes.add(|| "the lists of Services and pods are not complete yet".to_owned());
    }
    if let Some(relay) = &session.relay {
        // Whatever it says, the decision below says too.
        let _ = relay.ready(FIRST_TUNNEL).await;
    }
    let port = match &question.port {
        Some(PortName::Number(number)) => *number,
        Some(PortName::Name(name)) => {
            named_port(session, &question.host, name, question.protocol).await?
        }
        None => any_port(session, question, &mut notes),
    };
    let asked = Target::new(question.host.clone(), port);
    let dialer = session.dialer(true);
    let decision = dialer
        .decide_for(&asked, question.protocol, &mut notes)
        .await;
    let mut answer = Answer {
        asked: asked.to_string(),
        target: decision.target.to_string(),
        protocol: question.protocol.name(),
        decision: Direction::Failed,
        via: None,
        inside: Vec::new(),
        reachable: false,
        service: None,
        pods: Vec::new(),
        addresses: Vec::new(),
        proxy: None,
        rule: decision
            .rule
            .as_ref()
            .map(|rule| format!("{} {rule}", rule.side().setting())),
        aliases: decision.aliases.iter().map(ToString::to_string).collect(),
        error: None,
        why: Vec::new(),
    };
    fill(session, &decision, &mut answer, &mut notes).await;
    answer.why = notes.into_vec();
    Ok(answer)
}

/// The first port of the Service, where it is one's.
fn any_port(session: &Session, question: &Question, notes: &mut Notes) -> u16 {
    let services = session.catalog.services_named(&question.host).into_iter();
    let mut known = services.filter_map(|name| session.catalog.service_detail(&name));
    let port = known.find_map(|service| {
        let mut ports = service.ports.iter();
        let wanted = question.protocol.name();
        ports.find(|p| p.protocol == wanted).map(|p| p.port)
    });
    let port = port.unwrap_or(ANY_PORT);
    notes.add(|| format!("no port was named: port {port} is asked for"));
    port
}

async fn fill(session: &Session, decision: &Decision, answer: &mut Answer, notes: &mut Notes) {
    match &decision.way {
        Way::Cluster(endpoints) => {
            answer.decision = Direction::Cluster;
            answer.via = Some(Carrier::PortForward);
            answer.reachable = true;
            if !endpoints.declared {
                let port = decision.target.port;
                notes.add(|| format!("port {port} is not declared; it may be refused"));
            }
            show(session, endpoints, answer);
        }
        Way::Relay(inside, endpoints) => {
            answer.decision = Direction::Cluster;
            answer.via = Some(Carrier::Relay);
            answer.reachable = true;
            answer.inside = inside.targets.iter().map(ToString::to_string).collect();
            match endpoints {
                Some(endpoints) => show(session, endpoints, answer),
                None => show_service(session, decision, answer),
            }
        }
        Way::Laptop => {
            answer.decision = Direction::Laptop;
            let proxy = session.proxies.choose(&decision.target, Carries::Stream);
            // Such a proxy carries no datagrams.
            if let Ok(Some(chosen)) = proxy
                && answer.protocol == Protocol::Tcp.name()
            {
                let (proxy, from) = (chosen.proxy.url(), chosen.from);
                notes.add(|| format!("the proxy {proxy} ({from}) is asked to connect there"));
                answer.proxy = Some(proxy.to_string());
                answer.reachable = true;
                return;
            }
            let found = dial::lookup(&decision.target).await;
            answer.addresses = found.iter().map(|a| a.ip().to_string()).collect();
            answer.addresses.dedup();
            answer.reachable = !answer.addresses.is_empty();
            if !answer.reachable {
                let host = &decision.target.host;
                let hint = session.catalog.hint(&decision.target).await;
                answer.error = Some(match hint {
                    Some(hint) => format!("{host} was not found; {hint}"),
                    None => format!("this machine does not resolve {host}"),
                });
            }
        }
        Way::Failed(error) => {
            answer.error = Some(error.to_string());
            // What there is of the Service tells more than the failure alone.
            show_service(session, decision, answer);
        }
    }
}

/// Shows the Service that a name may mean, and its pods.
fn show_service(session: &Session, decision: &Decision, answer: &mut Answer) {
    let services = session.catalog.services_named(&decision.target.host);
    let mut known = services.iter();
    let first = known.find_map(|name| session.catalog.service_detail(name));
    if let Some(service) = first {
        answer.pods = pods(&service.pods, |_| None);
        answer.service = Some(describe(service));
    }
}

fn show(session: &Session, endpoints: &Endpoints, answer: &mut Answer) {
    let port = |pod: &Namespaced| {
        let mut pods = endpoints.pods.iter();
        pods.find(|p| p.pod == *pod).map(|p| p.port)
    };
    let service = endpoints.service.as_ref();
    let service = service.and_then(|name| session.catalog.service_detail(name));
    let known = match &service {
        Some(service) => service.pods.clone(),
        None => Vec::new(),
    };
    answer.pods = pods(&known, port);
    // What is dialled is shown, also where its details may not be seen.
    for dialled in &endpoints.pods {
        if !known.iter().any(|pod| pod.name == dialled.pod) {
            let detail = session.catalog.pod_detail(&dialled.pod);
            let ips = detail.map(|pod| pod.ips).unwrap_or_default();
            answer.pods.push(Pod {
                name: dialled.pod.name.clone(),
                namespace: dialled.pod.namespace.clone(),
                ips: ips.iter().map(ToString::to_string).collect(),
                port: Some(dialled.port),
                ready: true,
            });
        }
    }
    answer.service = service.map(describe);
}

fn pods(
    known: &[crate::k8s::catalog::PodDetail],
    port: impl Fn(&Namespaced) -> Option<u16>,
) -> Vec<Pod> {
    let pods = known.iter().map(|pod| Pod {
        name: pod.name.name.clone(),
        namespace: pod.name.namespace.clone(),
        ips: pod.ips.iter().map(ToString::to_string).collect(),
        port: port(&pod.name),
        ready: pod.ready,
    });
    pods.collect()
}

fn describe(service: crate::k8s::catalog::ServiceDetail) -> Service {
    let ports = service.ports.iter().map(|port| {
        let name = match &*port.name {
            "" => String::new(),
            name => format!("{name} "),
        };
        format!("{name}{}/{} -> {}", port.port, port.protocol, port.target)
    });
    Service {
        ports: ports.collect(),
        name: service.name.name,
        namespace: service.name.namespace,
        kind: service.kind,
        cluster_ips: service.ips.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_as_users_write_them() {
        let port = |text: &str| text.parse::<Question>().map(|q| q.port);
        assert_eq!(port("web.shop"), Ok(None));
        assert_eq!(port("web.shop.:80"), Ok(Some(PortName::Number(80))));
        assert_eq!(port("web:http"), Ok(Some(PortName::Name("http".into()))));
        assert_eq!(port("fd00::1"), Ok(None));
        assert_eq!(port("[fd00::1]:53"), Ok(Some(PortName::Number(53))));
        assert_eq!(port("http://web.shop/"), Ok(Some(PortName::Number(80))));
        assert_eq!(port("postgres://u@pg/db"), Ok(Some(PortName::Number(5432))));
        assert!(port("foo://web").is_err());
        let protocol = |text: &str| text.parse::<Question>().map(|q| q.protocol);
        assert_eq!(protocol("dns:53"), Ok(Protocol::Tcp));
        assert_eq!(protocol("dns:53/udp"), Ok(Protocol::Udp));
        for text in ["", ":80", "web:", "web:0", "web:99999", "a b", "web:53/x"] {
            assert!(port(text).is_err(), "{text}");
        }
    }
}
