//! Where a port leads that a user asks for: which Service, pod or workload has the name, and which
//! of its ports is meant.

use std::fmt;

use anyhow::bail;

use super::spec::{Named, PortName, Spec};
use crate::addr::{Host, Namespaced, Protocol, Target};
use crate::app::Session;
use crate::dial::DialError;
use crate::k8s::catalog::{Picked, PortDetail, ServiceDetail};

/// How many ports a message lists.
const SHOWN_PORTS: usize = 8;

/// Where a port leads.
pub(super) enum Place {
    /// To whatever the name means when it is dialled.
    Named(Target),
    /// To these pods; the target's name is for people.
    Pods(Picked, Target),
}

/// Finds it.
///
/// # Errors
/// When there is no such thing, or no such port of it.
pub(super) async fn find(session: &Session, spec: &Spec) -> anyhow::Result<Place> {
    let host = match &spec.what {
        Named::Pod(_) | Named::Workload(..) => return pods(session, spec).await,
        Named::Host(host) | Named::Service(host) => host,
    };
    let named = |port| Ok(Place::Named(Target::new(host.clone(), port)));
    let name = match &spec.port {
        Some(PortName::Number(number)) => return named(*number),
        Some(PortName::Name(name)) => Some(name),
        None => None,
    };
    let Host::Name(text) = host else {
        bail!(
            "which port of {host}? Only Services and pods have names for theirs: write {}:PORT",
            spec.what
        );
    };
    let error = match service(session, host).await {
        Ok(Some(service)) => return named(port_of_service(&service, spec)?),
        Ok(None) => None,
        Err(error) => Some(error),
    };
    if let Named::Host(_) = spec.what
        && let Some(picked) = pod(session, text).await
    {
        return of_pods(picked, spec);
    }
    match (error, name) {
        (Some(error), _) => Err(error.into()),
        (None, Some(name)) => bail!(
            "{text} is not the name of a Service or a pod{}; write the number instead of {name:?}",
            absence(session, host).await
        ),
        (None, None) => bail!(
            "{text} is not the name of a Service or a pod that you may see{}",
            absence(session, host).await
        ),
    }
}

/// The pods that a name without a type may mean, where no Service has it.
pub(super) async fn pod_instead(session: &Session, spec: &Spec) -> anyhow::Result<Option<Place>> {
    let Named::Host(Host::Name(name)) = &spec.what else {
        return Ok(None);
    };
    match pod(session, name).await {
        Some(picked) => of_pods(picked, spec).map(Some),
        None => Ok(None),
    }
}

/// The number of the port `name` of the Service that `host` means.
///
/// # Errors
/// When no Service has the name, or it no such port.
pub(in crate::app) async fn named_port(
    session: &Session,
    host: &Host,
    name: &str,
    protocol: Protocol,
) -> anyhow::Result<u16> {
    let Host::Name(text) = host else {
        bail!("only Services have named ports; write the number instead of {name:?}");
    };
    let Some(service) = service(session, host).await? else {
        bail!(
            "{text} is not the name of a Service{}; write the number instead of {name:?}",
            absence(session, host).await
        );
    };
    let asked = PortName::Name(name.to_owned());
    let of = Of {
        what: &described(&service.name),
        text,
        protocol,
    };
    of.number(&service.ports, Some(&asked))
}

/// What is to be said of a Service that does not declare the port of `target`.
pub(super) async fn undeclared(
    session: &Session,
    target: &Target,
    protocol: Protocol,
) -> Option<String> {
    let service = service(session, &target.host).await.ok()??;
    let own: Vec<&PortDetail> = of_protocol(&service.ports, protocol).collect();
    let is_own = own.iter().any(|own| own.port == target.port);
    if is_own || service.kind == "ExternalName" {
        return None;
    }
    let what = described(&service.name);
    Some(match own.is_empty() {
        true => format!("{what} declares no {} port at all", protocol.name()),
        false => format!(
            "{what} declares no port {}, only {}; connections may be refused",
            target.port,
            shown(&own)
        ),
    })
}

/// The Service that a name means, if there is one. An error of the first that it may mean counts
/// where no other has the name.
async fn service(session: &Session, host: &Host) -> Result<Option<ServiceDetail>, DialError> {
    let mut failed = None;
    for name in session.catalog.services_named(host) {
        match session.catalog.learn_service(&name).await {
            Ok(Some(service)) => return Ok(Some(service)),
            Ok(None) => {}
            // `github.com` may be a Service of namespace `com`, which most users may not see.
            Err(error) if name.namespace == session.client.namespace() => failed = Some(error),
            Err(_) => {}
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Why no Service has the name, to be added to a message; nothing where it can be none.
pub(super) async fn absence(session: &Session, host: &Host) -> String {
    match session.catalog.services_named(host).first() {
        Some(service) => format!("; {}", session.catalog.absence(service).await),
        None => String::new(),
    }
}

/// What `NAME` or `NAME.NAMESPACE` may mean: names of pods and workloads may have dots too.
fn names(session: &Session, text: &str) -> Vec<Namespaced> {
    let mut names = vec![Namespaced::new(session.client.namespace(), text)];
    if let Some((name, namespace)) = text.rsplit_once('.') {
        names.push(Namespaced::new(namespace, name));
    }
    names
}

async fn pod(session: &Session, text: &str) -> Option<Picked> {
    for name in names(session, text) {
        if let Ok(picked) = session.catalog.pick_pod(name).await {
            return Some(picked);
        }
    }
    None
}

/// The pods of a `TYPE/NAME`.
async fn pods(session: &Session, spec: &Spec) -> anyhow::Result<Place> {
    let text = match &spec.what {
        Named::Pod(text) | Named::Workload(_, text) => text,
        Named::Host(_) | Named::Service(_) => bail!("{} is no pod", spec.what),
    };
    let mut failed = None;
    for name in names(session, text) {
        let picked = match &spec.what {
            Named::Workload(kind, _) => session.catalog.pick_workload(*kind, name).await,
            _ => session.catalog.pick_pod(name).await,
        };
        match picked {
            Ok(picked) => return of_pods(picked, spec),
            // The longer reading says more of `pod/redis-0.shop`.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => bail!("{} has no name", spec.what),
    }
}

fn of_pods(picked: Picked, spec: &Spec) -> anyhow::Result<Place> {
    let text = spec.what.to_string();
    let of = Of {
        what: &picked.to_string(),
        text: &text,
        protocol: spec.protocol,
    };
    let port = of.number(&picked.ports(), spec.port.as_ref())?;
    let target = Target::new(Host::Name(text), port);
    Ok(Place::Pods(picked, target))
}

fn port_of_service(service: &ServiceDetail, spec: &Spec) -> anyhow::Result<u16> {
    let text = spec.what.to_string();
    if service.kind == "ExternalName" && spec.port.is_none() {
        bail!(
            "{} is an alias (ExternalName), which has no port of its own; say which: {text}:PORT",
            described(&service.name)
        );
    }
    let of = Of {
        what: &described(&service.name),
        text: &text,
        protocol: spec.protocol,
    };
    of.number(&service.ports, spec.port.as_ref())
}

/// Whose ports these are.
struct Of<'a> {
    /// In words.
    what: &'a str,
    /// As the user wrote it.
    text: &'a str,
    protocol: Protocol,
}

impl Of<'_> {
    /// The number of the port that is asked for, or of the only one.
    fn number(&self, ports: &[PortDetail], asked: Option<&PortName>) -> anyhow::Result<u16> {
        let Self {
            what,
            text,
            protocol,
        } = self;
        let own: Vec<&PortDetail> = of_protocol(ports, *protocol).collect();
        let protocol = protocol.name();
        let name = match (asked, own.as_slice()) {
            (Some(PortName::Number(number)), _) => return Ok(*number),
            (Some(PortName::Name(name)), _) => name,
            (None, [only]) => return Ok(only.port),
            (None, []) => bail!("{what} declares no {protocol} port; say which: {text}:PORT"),
            (None, several) => bail!(
                "{what} has several ports; say which: {text}:PORT, of {}",
                shown(several)
            ),
        };
        let found = own.iter().find(|port| port.name == *name);
        match (found, own.is_empty()) {
            (Some(port), _) => Ok(port.port),
            (None, true) => bail!(
                "{what} declares no {protocol} port at all; write the number instead of {name:?}"
            ),
            (None, false) => bail!("{what} has no port named {name:?}, only {}", shown(&own)),
        }
    }
}

fn of_protocol(ports: &[PortDetail], protocol: Protocol) -> impl Iterator<Item = &PortDetail> {
    let name = protocol.name();
    ports.iter().filter(move |port| port.protocol == name)
}

/// Ports in words: `80 (http), 9090`.
fn shown(ports: &[&PortDetail]) -> String {
    struct Port<'a>(&'a PortDetail);
    impl fmt::Display for Port<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match &*self.0.name {
                "" => self.0.port.fmt(f),
                name => write!(f, "{} ({name})", self.0.port),
            }
        }
    }
    let all = ports
        .iter()
        .take(SHOWN_PORTS)
        .map(|port| Port(port).to_string());
    let more = if ports.len() > SHOWN_PORTS {
        ", …"
    } else {
        ""
    };
    all.collect::<Vec<_>>().join(", ") + more
}

fn described(name: &Namespaced) -> String {
    format!("Service {} in namespace {}", name.name, name.namespace)
}
