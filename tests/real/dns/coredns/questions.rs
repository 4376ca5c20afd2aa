//! Every name that the objects have, or could have, by the forms of the specification.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};
use serde_json::Value;

use super::asking::Question;
use super::differing;
use crate::site::Site;

/// The types that are asked for.
const KINDS: [RecordType; 12] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::MX,
    RecordType::NS,
    RecordType::SOA,
    RecordType::ANY,
    RecordType::HTTPS,
    RecordType::CAA,
];
/// Those that an endpoint's address has something for, or nothing.
const FEW: [RecordType; 5] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::TXT,
    RecordType::PTR,
];
/// Host names that a Service's endpoint may have, and some that none has.
const HOSTS: [&str; 14] = [
    "first", "second", "half", "late", "set-0", "set-1", "box", "alike-1", "nope", "_tcp", "a.b.c",
    "http.tcp", "10-9-9-9", "*",
];

/// All questions about what is in the namespace, and about the zone.
pub(super) fn all(site: &Site) -> Vec<Question> {
    let namespace = &site.0;
    let services = site.object("services")["items"].clone();
    let pods = site.object("pods")["items"].clone();
    let slices = site.object("endpointslices")["items"].clone();
    let mut endpoints = addresses(&pods, "/status/podIPs", |ip| ip["ip"].as_str());
    for slice in list(&slices) {
        endpoints.extend(addresses(&slice["endpoints"], "/addresses", Value::as_str));
    }
    let labels: BTreeSet<String> = endpoints.iter().map(|ip| dashed(*ip)).collect();
    let mut questions = Vec::new();
    let mut ask = |below: String, kinds: &[RecordType]| {
        let name = format!("{below}.cluster.local");
        questions.extend(kinds.iter().map(|kind| (name.clone(), *kind)));
    };
    for service in list(&services) {
        let name = service["metadata"]["name"].as_str().unwrap();
        if differing::SERVICES.contains(&name) {
            continue;
        }
        let full = format!("{name}.{namespace}.svc");
        let hosts = HOSTS.into_iter().map(str::to_owned).chain(ports(service));
        hosts.for_each(|host| ask(format!("{host}.{full}"), &KINDS));
        if service["spec"]["type"] != "ExternalName" {
            let labels = labels.iter();
            labels.for_each(|label| ask(format!("{label}.{full}"), &FEW));
        }
        ask(full.to_uppercase(), &KINDS);
        ask(full, &KINDS);
    }
    let labels = labels.iter().map(String::as_str);
    for label in labels.chain(["10-1-2-3", "fd00--7", "--7", "10-1-2", "web"]) {
        for before in ["", "a.", "a.b.", "a.b.c."] {
            ask(format!("{before}{label}.{namespace}.pod"), &KINDS);
        }
        ask(format!("{label}.nowhere-{namespace}.pod"), &FEW);
    }
    for name in [
        format!("{namespace}.svc"),
        format!("{namespace}.pod"),
        format!("nowhere.{namespace}.svc"),
        format!("_http._tcp.nowhere.{namespace}.svc"),
        format!("nowhere-{namespace}.svc"),
        format!("own4.nowhere-{namespace}.svc"),
    ] {
        ask(name, &KINDS);
    }
    for name in [
        "svc",
        "pod",
        "dns",
        "dns-version",
        "nope",
        "a.b.c.d.e.f",
        "x.dns-version",
    ] {
        ask(name.to_owned(), &KINDS);
        ask(name.to_owned(), &[RecordType::AXFR, RecordType::IXFR]);
    }
    let whole = known(site).into_iter().map(reverse);
    for name in whole.chain(["cluster.local".to_owned()]) {
        questions.extend(KINDS.map(|kind| (name.clone(), kind)));
    }
    questions
}

/// The addresses that a Service has, or an endpoint that is ready.
fn known(site: &Site) -> BTreeSet<IpAddr> {
    let services = site.object("services")["items"].clone();
    let mut known = addresses(&services, "/spec/clusterIPs", Value::as_str);
    for slice in list(&site.object("endpointslices")["items"]) {
        if slice["metadata"]["name"] == "public" {
            continue;
        }
        let ready = list(&slice["endpoints"]);
        let ready = ready.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let ready = Value::Array(ready.cloned().collect());
        known.extend(addresses(&ready, "/addresses", Value::as_str));
    }
    known
}

/// The reverse name of an address.
fn reverse(ip: IpAddr) -> String {
    let name = Name::from(ip).to_string();
    name.trim_end_matches('.').to_owned()
}

fn list(items: &Value) -> impl Iterator<Item = &Value> {
    items.as_array().into_iter().flatten()
}

fn addresses(
    items: &Value,
    pointer: &str,
    text: impl Fn(&Value) -> Option<&str>,
) -> BTreeSet<IpAddr> {
    let lists = list(items).filter_map(|item| item.pointer(pointer));
    let texts = lists.flat_map(|found| found.as_array().into_iter().flatten());
    let ips = texts.filter_map(|found| text(found)?.parse().ok());
    ips.collect()
}

/// Names of ports, and what looks like one, with each protocol.
fn ports(service: &Value) -> Vec<String> {
    let named = list(&service["spec"]["ports"]).filter_map(|port| port["name"].as_str());
    let names: Vec<&str> = named.chain(["nope", ""]).collect();
    let protocols = ["_tcp", "_udp", "_sctp", "_", "udp"].into_iter();
    let pairs =
        protocols.flat_map(|protocol| names.iter().map(move |name| format!("_{name}.{protocol}")));
    pairs.collect()
}

/// The label of an address; as CoreDNS has it, none ends with a dash.
fn dashed(ip: IpAddr) -> String {
    let label = ip.to_string().replace(['.', ':'], "-");
    match label.strip_suffix('-') {
        Some(_) => format!("{label}0"),
        None => label,
    }
}
