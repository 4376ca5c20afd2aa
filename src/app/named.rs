//! Dials by address that are told of by name: who was caught has looked the name up before.

use crate::addr::{Host, Target};
use crate::app::session::Dialer;
use crate::dial::{Dial, DialError, DialUdp, Flow, HttpIo, Mark};
use crate::k8s::Catalog;

/// Dials a Service by its name where an address is a Service's.
#[derive(Clone)]
pub(super) struct Named {
    dialer: Dialer,
    catalog: Catalog,
}

impl Named {
    pub(super) fn new(dialer: Dialer, catalog: Catalog) -> Self {
        Self { dialer, catalog }
    }

    fn named(&self, target: &Target) -> Target {
        let Host::Ip(ip) = target.host else {
            return target.clone();
        };
        let service = self.catalog.service_at(ip.to_canonical());
        let host = service.map(|service| format!("{}.{}", service.name, service.namespace));
        Target {
            host: host.map_or(Host::Ip(ip), Host::Name),
            port: target.port,
        }
    }
}

impl Dial for Named {
    type Io = <Dialer as Dial>::Io;

    async fn dial(&self, target: &Target) -> Result<Self::Io, DialError> {
        self.dialer.dial(&self.named(target)).await
    }

    async fn dial_http(&self, target: &Target) -> Result<HttpIo<Self::Io>, DialError> {
        self.dialer.dial_http(&self.named(target)).await
    }

    fn mark(&self, target: &Target) -> Option<Mark> {
        self.dialer.mark(&self.named(target))
    }
}

impl DialUdp for Named {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        self.dialer.dial_udp(&self.named(target)).await
    }
}
