//! What a user asks for: which Service's requests, and where they go.

use std::str::FromStr;
use std::time::Duration;

use crate::addr::{Host, Target};
use crate::app::forward::PortName;
use crate::k8s::redirect::list::ServicePort;
use crate::rule::{AppProtocol, Conditions};

/// The host of an app that is named by its port alone.
const HERE: &str = "localhost";
/// The port that a Service's requests are taken from where it has several and none is named.
const USUAL: &str = "http";

/// A Service's port, and the app for its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The Service, in the session's namespace.
    pub service: Source,
    /// The app.
    pub app: Target,
}

/// `SERVICE[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The Service's name.
    pub service: String,
    /// Its port's number or name, where one is said.
    pub port: Option<PortName>,
}

/// Which requests, and how.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Those that fulfil all of these.
    pub conditions: Conditions,
    /// Copies only.
    pub mirror: bool,
    /// The original pods answer while the app does not.
    pub fallback: bool,
    /// They never do, not even while this kdev is silent.
    pub strict: bool,
    /// What callers speak, instead of what the Service says.
    pub protocol: Option<AppProtocol>,
    /// Claims of others that are in the way go.
    pub take_over: bool,
    /// What is merely unwise is done all the same.
    pub force: bool,
    /// The Service's pods are replaced one by one, so that old connections move.
    pub drain: bool,
    /// Whether each request is told.
    pub log: bool,
    /// Whether a command is about to start the app: until it first answers, the original pods do,
    /// unless it is strict.
    pub patient: bool,
    /// When it ends by itself.
    pub lasts: Option<Duration>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port)),
            None => (text, None),
        };
        let of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if let Some((service, namespace)) = service.split_once('.') {
            return Err(format!(
                "the Service must be in the session's namespace; write `-n {namespace} {service}`"
            ));
        }
        if service.is_empty() || service.len() > 63 || !service.bytes().all(of_name) {
            return Err(format!("{text:?} is not SERVICE or SERVICE:PORT"));
        }
        let port = port.map(str::parse).transpose();
        Ok(Self {
            service: service.to_owned(),
            port: port.map_err(|()| format!("{text:?} is not SERVICE or SERVICE:PORT"))?,
        })
    }
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((service, app)) = text.split_once('=') else {
            return Err(format!("{text:?} is not SERVICE[:PORT]=[HOST:]PORT"));
        };
        Ok(Self {
            service: service.parse()?,
            app: app_at(app)?,
        })
    }
}

/// `[HOST:]PORT`.
///
/// # Errors
/// What is wrong with it.
pub fn app_at(text: &str) -> Result<Target, String> {
    let wrong = || format!("{text:?} is not PORT or HOST:PORT, with a port from 1 to 65535");
    if let Ok(port) = text.parse::<u16>() {
        if port == 0 {
            return Err(wrong());
        }
        return Ok(Target::new(Host::Name(HERE.into()), port));
    }
    let target: Target = text.parse().map_err(|_| wrong())?;
    if target.port == 0 {
        return Err(wrong());
    }
    Ok(target)
}

impl Source {
    /// The port that is meant, among those that the Service has.
    ///
    /// # Errors
    /// Which there are, where it is none or not clear which.
    pub fn choose<'a>(&self, ports: &'a [ServicePort]) -> Result<&'a ServicePort, String> {
        let service = &self.service;
        let names = || {
            let names = ports.iter().map(|port| match port.name.is_empty() {
                true => port.port.to_string(),
                false => format!("{} ({})", port.port, port.name),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let found = match &self.port {
            Some(PortName::Number(number)) => ports.iter().find(|port| port.port == *number),
            Some(PortName::Name(name)) => ports.iter().find(|port| port.name == *name),
            None if ports.len() == 1 => ports.first(),
            None if ports.is_empty() => {
                return Err(format!(
                    "Service {service} has no port, so nothing comes to it that could be \
                     intercepted; an alias (ExternalName) has none"
                ));
            }
            None => {
                let usual = ports.iter().find(|port| port.name == USUAL);
                return usual.ok_or_else(|| {
                    format!(
                        "Service {service} has several ports; say which: {service}:PORT, of {}",
                        names()
                    )
                });
            }
        };
        let port = found.ok_or_else(|| {
            let port = self.port.as_ref().map(ToString::to_string);
            format!(
                "Service {service} has no port {}; it has {}",
                port.unwrap_or_default(),
                names()
            )
        })?;
        match port.tcp {
            true => Ok(port),
            false => Err(format!(
                "port {} of Service {service} is UDP, which cannot be intercepted",
                port.port
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let asked: Asked = "orders=8080".parse().unwrap();
        assert_eq!(asked.service.service, "orders");
        assert_eq!(asked.app.to_string(), "localhost:8080");
        let asked: Asked = "orders:http=10.0.0.5:9000".parse().unwrap();
        assert_eq!(asked.service.port, Some(PortName::Name("http".into())));
        assert_eq!(asked.app.to_string(), "10.0.0.5:9000");
        let asked: Asked = "orders:80=[::1]:9000".parse().unwrap();
        assert_eq!(asked.service.port, Some(PortName::Number(80)));
        assert_eq!(asked.app.to_string(), "[::1]:9000");
        for wrong in [
            "orders",
            "=80",
            "Orders=80",
            "orders=",
            "orders=0",
            "orders:=80",
            "o=x",
        ] {
            assert!(wrong.parse::<Asked>().is_err(), "{wrong}");
        }
        let other = "orders.shop".parse::<Source>().unwrap_err();
        assert!(other.contains("-n shop"), "{other}");
    }

    #[test]
    fn the_port_is_the_only_one_or_http_or_said() {
        let port = |name: &str, port, tcp| ServicePort {
            name: name.into(),
            port,
            app_protocol: None,
            tcp,
        };
        let source = |text: &str| text.parse::<Source>().unwrap();
        let one = [port("", 80, true)];
        assert_eq!(source("a").choose(&one).unwrap().port, 80);
        let two = [port("admin", 81, true), port("http", 80, true)];
        assert_eq!(source("a").choose(&two).unwrap().port, 80);
        assert_eq!(source("a:admin").choose(&two).unwrap().port, 81);
        let none = [port("x", 1, true), port("y", 2, true), port("z", 3, false)];
        let error = source("a").choose(&none).unwrap_err();
        assert!(error.contains("1 (x), 2 (y)"), "{error}");
        assert!(
            source("a:9")
                .choose(&none)
                .unwrap_err()
                .contains("no port 9")
        );
        assert!(source("a:z").choose(&none).unwrap_err().contains("UDP"));
    }
}
