//! From a question and what is known of the cluster to the records of the answer. Pure: what is
//! not known is asked for by the caller, who then comes again.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::message::{Question, Reply};
use super::name::{Form, Place};
use super::zone::{Endpoint, Found, Port, Service, Subject, dashed};
use crate::addr::Namespaced;

/// How long an answer about the cluster is good, in seconds: what CoreDNS gives.
pub(super) const TTL: u32 = 5;
/// The version of the Kubernetes DNS specification that the answers follow.
const SCHEMA: &str = "1.1.0";
/// Timers of the SOA record, as CoreDNS has them. There are no secondaries that would use them.
const REFRESH: i32 = 7200;
const RETRY: i32 = 1800;
const EXPIRE: i32 = 86_400;

/// What comes out of a look at what is known.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The whole answer.
    Reply(Reply),
    /// The answer begins with an alias; what the target is has to be found out.
    Alias(Reply, Name),
    /// This has to be known first.
    Ask(Subject),
    /// Not the cluster's: the laptop's resolvers know.
    Elsewhere,
}

/// What an answer is made from.
pub(super) struct Context<'a> {
    pub(super) domain: &'a str,
    pub(super) namespace: &'a str,
    /// Whether a name without the domain means nothing, as in an alias.
    pub(super) exact: bool,
    /// The address that the question came to.
    pub(super) server: IpAddr,
    /// What is known.
    pub(super) find: &'a dyn Fn(&Subject) -> Found,
    /// Whether a name of this namespace that may be a public one may be asked about.
    pub(super) may_ask: &'a dyn Fn(&str) -> bool,
}

/// Answers `question`.
pub(super) fn answer(context: &Context<'_>, question: &Question) -> Outcome {
    let place = Place::of(question.name(), context.domain, context.namespace);
    let answering = Answering { context, question };
    if place != Place::Elsewhere && question.class() != DNSClass::IN {
        return match place {
            Place::Cluster(_) => Outcome::Reply(Reply::empty(ResponseCode::Refused)),
            _ => Outcome::Elsewhere,
        };
    }
    match place {
        Place::Elsewhere => Outcome::Elsewhere,
        Place::Relative { .. } if context.exact => Outcome::Elsewhere,
        Place::Cluster(form) => answering.in_domain(&form),
        Place::Reverse(ip) => answering.reverse(ip),
        Place::Relative { forms, certain } => answering.relative(&forms, certain),
    }
}

struct Answering<'a> {
    context: &'a Context<'a>,
    question: &'a Question,
}

/// The records of a name; what they are for may be another question.
enum Records {
    /// Exists; the records of the type that was asked for, and what may help with them.
    These(Vec<RData>, Vec<Record>),
    Alias(String),
    Nowhere,
    Ask(Subject),
    Failed(String),
}

impl Answering<'_> {
    fn in_domain(&self, form: &Form) -> Outcome {
        if matches!(self.question.kind(), RecordType::AXFR | RecordType::IXFR) {
            return Outcome::Reply(Reply::empty(ResponseCode::Refused));
        }
        match self.records(form) {
            Records::Nowhere => self.negative(ResponseCode::NXDomain),
            records => self.outcome(records, true),
        }
    }

    fn relative(&self, forms: &[Form], certain: bool) -> Outcome {
        for form in forms {
            match self.records(form) {
                Records::Nowhere => {}
                Records::Ask(_) if !certain && !self.may_ask(form) => {}
                // Whether the cluster has it cannot be known, and somebody else may.
                Records::Failed(_) if !certain => {}
                records => return self.outcome(records, false),
            }
        }
        if certain {
            // No public name ends so, and the laptop's resolvers shall not learn of it.
            let mut reply = Reply::empty(ResponseCode::NXDomain);
            reply.authoritative = true;
            Outcome::Reply(reply)
        } else {
            Outcome::Elsewhere
        }
    }

    /// Whether the cluster may be asked about a name that may be a public one.
    fn may_ask(&self, form: &Form) -> bool {
        matches!(form, Form::Service(name) if (self.context.may_ask)(&name.namespace))
    }

    fn reverse(&self, ip: IpAddr) -> Outcome {
        match (self.context.find)(&Subject::Address(ip)) {
            Found::Owner(names) => {
                let nowhere = names.is_empty();
                let names = if self.wants(RecordType::PTR) {
                    names
                } else {
                    Vec::new()
                };
                let names = names.iter().filter_map(|name| self.full(name));
                let names = names.map(|name| self.record(RData::PTR(PTR(name))));
                // No SOA record goes with "not there": the domain's is of another zone.
                let code = if nowhere {
                    ResponseCode::NXDomain
                } else {
                    ResponseCode::NoError
                };
                let mut reply = Reply::empty(code);
                reply.authoritative = true;
                reply.answers = names.collect();
                Outcome::Reply(reply)
            }
            // An address of a private network may be the cluster's; nobody is asked about others.
            Found::Unknown if is_private(ip) => Outcome::Ask(Subject::Address(ip)),
            _ => Outcome::Elsewhere,
        }
    }

    fn outcome(&self, records: Records, in_domain: bool) -> Outcome {
        match records {
            Records::These(data, additionals) => {
                if data.is_empty() && in_domain {
                    return self.negative(ResponseCode::NoError);
                }
                let mut reply = Reply::empty(ResponseCode::NoError);
                reply.authoritative = true;
                reply.answers = data.into_iter().map(|data| self.record(data)).collect();
                reply.additionals = additionals;
                Outcome::Reply(reply)
            }
            Records::Alias(target) => match Name::from_ascii(format!("{target}.")) {
                Ok(target) => {
                    let mut reply = Reply::empty(ResponseCode::NoError);
                    reply.authoritative = true;
                    reply.answers = vec![self.record(RData::CNAME(CNAME(target.clone())))];
                    if matches!(self.question.kind(), RecordType::CNAME | RecordType::ANY) {
                        return Outcome::Reply(reply);
                    }
                    Outcome::Alias(reply, target)
                }
                Err(_) => Outcome::Reply(Reply::empty(ResponseCode::ServFail)),
            },
            Records::Nowhere => self.negative(ResponseCode::NXDomain),
            Records::Ask(subject) => Outcome::Ask(subject),
            Records::Failed(error) => {
                tracing::debug!(name = %self.question.name(), %error, "cannot be answered");
                Outcome::Reply(Reply::empty(ResponseCode::ServFail))
            }
        }
    }

    /// What `form` has of the type that was asked for.
    fn records(&self, form: &Form) -> Records {
        let these = |data| Records::These(data, Vec::new());
        let found = match form.subject() {
            Some(subject) => match (self.context.find)(&subject) {
                Found::Unknown => return Records::Ask(subject),
                Found::Failed(error) => return Records::Failed(error),
                Found::Absent => return Records::Nowhere,
                found => Some(found),
            },
            None => None,
        };
        match (form, found) {
            (Form::Apex, _) => these(self.apex()),
            (Form::Version, _) => these(self.only(RecordType::TXT, || {
                Some(RData::TXT(TXT::new(vec![SCHEMA.to_owned()])))
            })),
            (Form::Server, _) => these(self.addresses([self.context.server])),
            (Form::Inner, _) | (Form::Namespace(_), _) => these(Vec::new()),
            (Form::Pod(_, ip), _) => these(self.addresses([*ip])),
            (Form::Service(name), Some(Found::Service(service))) => self.service(name, service),
            (Form::Protocol(_, proto), Some(Found::Service(service))) => {
                if ports(&service).any(|p| p.protocol.label() == proto && !p.name.is_empty()) {
                    these(Vec::new())
                } else {
                    Records::Nowhere
                }
            }
            (Form::Port(name, port, proto), Some(Found::Service(service))) => {
                self.port(name, &service, port, proto)
            }
            (Form::Endpoint(..), Some(Found::Service(Service::Headless(endpoints))))
                if !endpoints.is_empty() =>
            {
                these(self.addresses(endpoints.iter().flat_map(|e| e.ips.iter().copied())))
            }
            _ => Records::Nowhere,
        }
    }

    fn apex(&self) -> Vec<RData> {
        let mut data = self.only(RecordType::NS, || Some(RData::NS(NS(self.full("ns.dns")?))));
        data.extend(self.only(RecordType::SOA, || self.soa()));
        data
    }

    fn service(&self, name: &Namespaced, service: Service) -> Records {
        let text = format!("{}.{}.svc", name.name, name.namespace);
        match service {
            Service::Alias(target) => match target.parse::<IpAddr>() {
                Ok(ip) => Records::These(self.addresses([ip]), Vec::new()),
                Err(_) => Records::Alias(target),
            },
            // The specification wants this, although the name has ports below it.
            Service::Headless(endpoints) if endpoints.is_empty() => Records::Nowhere,
            // Applications ask for SRV without a port too, and CoreDNS answers with all.
            service if self.question.kind() == RecordType::SRV => {
                self.srv(&text, &service, |_| true)
            }
            Service::Cluster { ips, .. } => Records::These(self.addresses(ips), Vec::new()),
            Service::Headless(endpoints) => {
                let ips = endpoints.into_iter().flat_map(|e| e.ips);
                let mut data = self.addresses(ips);
                // Those that take only the first shall not all take the same.
                if data.len() > 1 {
                    let first = rand::random_range(0..data.len());
                    data.rotate_left(first);
                }
                Records::These(data, Vec::new())
            }
        }
    }

    fn port(&self, name: &Namespaced, service: &Service, port: &str, proto: &str) -> Records {
        let matches = |p: &Port| *p.name == *port && p.protocol.label() == proto;
        if !ports(service).any(matches) {
            return Records::Nowhere;
        }
        if !self.wants(RecordType::SRV) {
            return Records::These(Vec::new(), Vec::new());
        }
        let text = format!("{}.{}.svc", name.name, name.namespace);
        self.srv(&text, service, matches)
    }

    /// SRV records of the ports that match, with the addresses of their targets.
    fn srv(&self, name: &str, service: &Service, matches: impl Fn(&Port) -> bool) -> Records {
        let mut targets: Vec<(Name, &[IpAddr], &[Port])> = Vec::new();
        match service {
            Service::Cluster { ips, ports } => {
                targets.extend(self.full(name).map(|n| (n, &**ips, &**ports)));
            }
            Service::Headless(endpoints) => {
                let named = endpoints.iter().filter_map(|endpoint| {
                    let host = self.full(&format!("{}.{name}", host(endpoint)?))?;
                    Some((host, &*endpoint.ips, &*endpoint.ports))
                });
                targets.extend(named);
            }
            Service::Alias(_) => {}
        }
        let count: usize = targets
            .iter()
            .map(|(_, _, p)| p.iter().filter(|p| matches(p)).count())
            .sum();
        // All are equally good; the weights of one answer are about a hundred in sum.
        let weight = (100 / count.max(1)).max(1) as u16;
        let mut data = Vec::with_capacity(count);
        let mut additionals = Vec::new();
        for (target, ips, ports) in targets {
            let before = data.len();
            let ports = ports.iter().filter(|port| matches(port));
            data.extend(ports.map(|p| RData::SRV(SRV::new(0, weight, p.number, target.clone()))));
            if data.len() > before {
                let ips = ips.iter().map(|ip| address(*ip));
                additionals.extend(ips.map(|a| Record::from_rdata(target.clone(), TTL, a)));
            }
        }
        Records::These(data, additionals)
    }

    /// The addresses of the family that was asked for.
    fn addresses(&self, ips: impl IntoIterator<Item = IpAddr>) -> Vec<RData> {
        let ips = ips.into_iter().filter(|ip| match ip {
            IpAddr::V4(_) => self.wants(RecordType::A),
            IpAddr::V6(_) => self.wants(RecordType::AAAA),
        });
        ips.map(address).collect()
    }

    fn only(&self, kind: RecordType, data: impl FnOnce() -> Option<RData>) -> Vec<RData> {
        let wanted = self.wants(kind);
        wanted.then(data).flatten().into_iter().collect()
    }

    fn wants(&self, kind: RecordType) -> bool {
        let asked = self.question.kind();
        asked == kind || asked == RecordType::ANY
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.question.name().clone(), TTL, data)
    }

    /// "Not there", with the record that says how long that is good.
    fn negative(&self, code: ResponseCode) -> Outcome {
        let mut reply = Reply::empty(code);
        reply.authoritative = true;
        if let (Ok(domain), Some(soa)) = (self.domain(), self.soa()) {
            reply.authorities = vec![Record::from_rdata(domain, TTL, soa)];
        }
        Outcome::Reply(reply)
    }

    fn soa(&self) -> Option<RData> {
        let (server, admin) = (self.full("ns.dns")?, self.full("hostmaster")?);
        let soa = SOA::new(server, admin, 1, REFRESH, RETRY, EXPIRE, TTL);
        Some(RData::SOA(soa))
    }

    fn domain(&self) -> Result<Name, hickory_proto::ProtoError> {
        Name::from_ascii(format!("{}.", self.context.domain))
    }

    /// A name below the domain; none where that would be longer than names may be.
    fn full(&self, name: &str) -> Option<Name> {
        Name::from_ascii(format!("{name}.{}.", self.context.domain)).ok()
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn ports(service: &Service) -> Box<dyn Iterator<Item = &Port> + '_> {
    match service {
        Service::Cluster { ports, .. } => Box::new(ports.iter()),
        Service::Headless(endpoints) => Box::new(endpoints.iter().flat_map(|e| &e.ports)),
        Service::Alias(_) => Box::new(std::iter::empty()),
    }
}

/// The endpoint's name in its Service.
fn host(endpoint: &Endpoint) -> Option<String> {
    match &endpoint.host {
        Some(host) => Some(host.to_string()),
        None => endpoint.ips.first().map(|ip| dashed(*ip)),
    }
}

/// Whether an address is of a range that networks use inside (RFC 1918, 6598, 4193).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
