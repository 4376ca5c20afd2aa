//! From a question and what is known of the cluster to the records of the answer. Pure: what is
//! not known is asked for by the caller, who then comes again.
//!
//! Where the specification leaves something open, answers are those of CoreDNS 1.15 (`ServeDNS` of
//! its plugin `kubernetes`, `plugin/backend_lookup.go`): applications were tried with that.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::items::{self, Item, Ports};
use super::message::{Question, Reply};
use super::name::{Form, Place};
use super::zone::{Found, Service, Subject};

/// How long an answer about the cluster is good, in seconds: what CoreDNS gives.
pub(super) const TTL: u32 = 5;
/// The version of the Kubernetes DNS specification that the answers follow.
const SCHEMA: &str = "1.1.0";
/// Timers of the SOA record, as CoreDNS has them. There are no secondaries that would use them.
const REFRESH: i32 = 7200;
const RETRY: i32 = 1800;
const EXPIRE: i32 = 86_400;
/// The name server of a zone, below it.
const SERVER: &str = "ns.dns";
/// The zones of the reverse names.
const IN_ADDR: &str = "in-addr.arpa";
const IP6: &str = "ip6.arpa";

/// What comes out of a look at what is known.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The whole answer.
    Reply(Reply),
    /// The answer begins with an alias; what the target is has to be found out.
    Alias(Alias),
    /// This has to be known first.
    Ask(Subject),
    /// Not the cluster's: the laptop's resolvers know.
    Elsewhere,
}

/// An answer that is an alias so far.
#[derive(Debug)]
pub(super) struct Alias {
    /// The alias itself.
    pub(super) reply: Reply,
    /// What it stands for.
    pub(super) target: Name,
    /// The whole answer where the cluster has nothing under `target`: as if there was no alias.
    pub(super) nothing: Reply,
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

/// What a name stands for.
enum Content {
    /// The cluster's domain.
    Apex,
    /// The name server of the domain's NS record: this one.
    Server,
    /// The version of the specification.
    Version,
    /// Nothing, but something is below.
    Inner,
    /// A Service, its endpoints or a pod: at least one.
    Items(Vec<Item>),
    /// Another name.
    Alias(String),
    Nowhere,
    Ask(Subject),
    Failed(String),
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
        match self.question.kind() {
            RecordType::AXFR | RecordType::IXFR => {
                return Outcome::Reply(Reply::empty(ResponseCode::Refused));
            }
            // Whether the name exists is not looked at.
            RecordType::SOA if *form != Form::Apex => {
                return Outcome::Reply(self.negative(ResponseCode::NoError));
            }
            _ => {}
        }
        match self.records(form) {
            Records::Nowhere => Outcome::Reply(self.negative(ResponseCode::NXDomain)),
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
            Outcome::Reply(Reply::authoritative(ResponseCode::NXDomain))
        } else {
            Outcome::Elsewhere
        }
    }

    /// Whether the cluster may be asked about a name that may be a public one.
    fn may_ask(&self, form: &Form) -> bool {
        matches!(form, Form::Service(name) if (self.context.may_ask)(&name.namespace))
    }

    fn reverse(&self, ip: IpAddr) -> Outcome {
        let names = match (self.context.find)(&Subject::Address(ip)) {
            Found::Owner(names) => names,
            // An address of a private network may be the cluster's; nobody is asked about others.
            Found::Unknown if is_private(ip) => return Outcome::Ask(Subject::Address(ip)),
            _ => return Outcome::Elsewhere,
        };
        let zone = if ip.is_ipv4() { IN_ADDR } else { IP6 };
        // The name exists for questions about PTR records alone.
        let code = match self.question.kind() {
            RecordType::AXFR | RecordType::IXFR => {
                return Outcome::Reply(Reply::empty(ResponseCode::Refused));
            }
            RecordType::PTR if !names.is_empty() => {
                let names = names.iter().filter_map(|name| self.full(name));
                let mut reply = Reply::authoritative(ResponseCode::NoError);
                reply.answers = names
                    .map(|name| self.record(RData::PTR(PTR(name))))
                    .collect();
                return Outcome::Reply(reply);
            }
            RecordType::SOA => ResponseCode::NoError,
            _ => ResponseCode::NXDomain,
        };
        Outcome::Reply(negative(zone, code))
    }

    fn outcome(&self, records: Records, in_domain: bool) -> Outcome {
        let nothing = || {
            if in_domain {
                self.negative(ResponseCode::NoError)
            } else {
                Reply::authoritative(ResponseCode::NoError)
            }
        };
        match records {
            Records::These(data, _) if data.is_empty() => Outcome::Reply(nothing()),
            Records::These(data, additionals) => {
                let mut reply = Reply::authoritative(ResponseCode::NoError);
                reply.answers = data.into_iter().map(|data| self.record(data)).collect();
                reply.additionals = additionals;
                Outcome::Reply(reply)
            }
            Records::Alias(target) => match Name::from_ascii(format!("{target}.")) {
                Ok(target) => {
                    let mut reply = Reply::authoritative(ResponseCode::NoError);
                    reply.answers = vec![self.record(RData::CNAME(CNAME(target.clone())))];
                    if self.question.kind() == RecordType::CNAME {
                        return Outcome::Reply(reply);
                    }
                    Outcome::Alias(Alias {
                        reply,
                        target,
                        nothing: nothing(),
                    })
                }
                Err(_) => Outcome::Reply(Reply::empty(ResponseCode::ServFail)),
            },
            Records::Nowhere => Outcome::Reply(self.negative(ResponseCode::NXDomain)),
            Records::Ask(subject) => Outcome::Ask(subject),
            Records::Failed(error) => {
                tracing::debug!(name = %self.question.name(), %error, "cannot be answered");
                Outcome::Reply(Reply::empty(ResponseCode::ServFail))
            }
        }
    }

    /// What `form` stands for.
    fn content(&self, form: &Form) -> Content {
        let found = match form.subject() {
            Some(subject) => match (self.context.find)(&subject) {
                Found::Unknown => return Content::Ask(subject),
                Found::Failed(error) => return Content::Failed(error),
                Found::Absent => return Content::Nowhere,
                found => Some(found),
            },
            None => None,
        };
        let items = match (form, found) {
            (Form::Apex, _) => return Content::Apex,
            (Form::Server, _) => return Content::Server,
            (Form::Version, _) => return Content::Version,
            (Form::Inner | Form::Namespace(_), _) => return Content::Inner,
            (Form::Pod(namespace, label, ip), _) => vec![Item {
                host: format!("{label}.{namespace}.pod"),
                ip: *ip,
                port: Some(0),
            }],
            (Form::Service(_), Some(Found::Service(Service::Alias(target)))) => {
                // An address is no name that an alias could stand for.
                return match target.parse::<IpAddr>() {
                    Ok(_) => Content::Nowhere,
                    Err(_) => Content::Alias(target),
                };
            }
            (Form::Service(name) | Form::Endpoint(name, _), Some(Found::Service(service))) => {
                items::of_service(name, &service, Ports::default())
            }
            (Form::Port(service_name, name, protocol), Some(Found::Service(service))) => {
                items::of_service(service_name, &service, Ports { name, protocol })
            }
            _ => return Content::Nowhere,
        };
        if items.is_empty() {
            Content::Nowhere
        } else {
            Content::Items(items)
        }
    }

    /// What `form` has of the type that was asked for.
    fn records(&self, form: &Form) -> Records {
        let kind = self.question.kind();
        let these = |data: Vec<RData>| Records::These(data, Vec::new());
        match (self.content(form), kind) {
            (Content::Nowhere, _) => Records::Nowhere,
            (Content::Ask(subject), _) => Records::Ask(subject),
            (Content::Failed(error), _) => Records::Failed(error),
            (Content::Version, RecordType::TXT) => {
                these(vec![RData::TXT(TXT::new(vec![SCHEMA.to_owned()]))])
            }
            // For CoreDNS names without an address do not exist as far as texts go, and these two
            // exist for their own types alone.
            (Content::Version, _) => Records::Nowhere,
            (Content::Apex | Content::Inner | Content::Server, RecordType::TXT)
            | (Content::Server, RecordType::PTR) => Records::Nowhere,
            (Content::Apex, RecordType::NS) => these(
                self.full(SERVER)
                    .map(|name| RData::NS(NS(name)))
                    .into_iter()
                    .collect(),
            ),
            (Content::Apex, RecordType::SOA) => {
                these(soa(self.context.domain).into_iter().collect())
            }
            (Content::Server, _) => {
                let own = [self.context.server].into_iter();
                these(own.filter(|ip| self.wants(ip)).map(address).collect())
            }
            (Content::Apex | Content::Inner, _) => these(Vec::new()),
            (Content::Alias(target), RecordType::A | RecordType::AAAA | RecordType::CNAME) => {
                Records::Alias(target)
            }
            (Content::Alias(_), _) => these(Vec::new()),
            (Content::Items(items), RecordType::SRV) => self.srv(&items),
            (Content::Items(items), _) => {
                let ips = items::addresses(&items, |ip| self.wants(ip)).into_iter();
                let mut data: Vec<RData> = ips.map(address).collect();
                // Those that take only the first shall not all take the same.
                if data.len() > 1 {
                    let first = rand::random_range(0..data.len());
                    data.rotate_left(first);
                }
                these(data)
            }
        }
    }

    /// An SRV record for each name and port, with the addresses of the names.
    fn srv(&self, items: &[Item]) -> Records {
        let weight = items::weight(items.len());
        let (mut data, mut additionals) = (Vec::new(), Vec::new());
        let (mut targets, mut addresses) = (HashSet::new(), HashSet::new());
        for item in items {
            let (Some(port), Some(target)) = (item.port, self.full(&item.host)) else {
                continue;
            };
            if targets.insert((&item.host, port)) {
                data.push(RData::SRV(SRV::new(0, weight, port, target.clone())));
            }
            if addresses.insert((&item.host, item.ip)) {
                additionals.push(Record::from_rdata(target, TTL, address(item.ip)));
            }
        }
        Records::These(data, additionals)
    }

    /// Whether an address is of the family that was asked for.
    fn wants(&self, ip: &IpAddr) -> bool {
        let kind = match ip {
            IpAddr::V4(_) => RecordType::A,
            IpAddr::V6(_) => RecordType::AAAA,
        };
        self.question.kind() == kind
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.question.name().clone(), TTL, data)
    }

    /// "Not there", with the record that says how long that is good.
    fn negative(&self, code: ResponseCode) -> Reply {
        negative(self.context.domain, code)
    }

    /// A name below the domain; none where that would be longer than names may be.
    fn full(&self, name: &str) -> Option<Name> {
        below(name, self.context.domain)
    }
}

/// "Not there" of a zone.
fn negative(zone: &str, code: ResponseCode) -> Reply {
    let mut reply = Reply::authoritative(code);
    if let (Ok(owner), Some(soa)) = (Name::from_ascii(format!("{zone}.")), soa(zone)) {
        reply.authorities = vec![Record::from_rdata(owner, TTL, soa)];
    }
    reply
}

/// A name below a zone; none where that would be longer than names may be.
fn below(name: &str, zone: &str) -> Option<Name> {
    // From its labels as they are: that of an IPv6 address may begin with a dash.
    let labels = name.split('.').chain(zone.split('.'));
    Name::from_labels(labels.map(str::as_bytes)).ok()
}

fn soa(zone: &str) -> Option<RData> {
    let (server, admin) = (below(SERVER, zone)?, below("hostmaster", zone)?);
    let soa = SOA::new(server, admin, 1, REFRESH, RETRY, EXPIRE, TTL);
    Some(RData::SOA(soa))
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
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
