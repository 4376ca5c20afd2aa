//! Which record of the Kubernetes DNS specification a name asks for. Pure.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::undashed;
use super::zone::Subject;
use crate::addr::Namespaced;

/// A name below the cluster's domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The domain itself.
    Apex,
    /// `ns.dns`: the name server that the domain's NS record names.
    Server,
    /// `dns-version`.
    Version,
    /// `svc`, `pod`: nothing is there, but something is below.
    Inner,
    /// A namespace under `svc` or `pod`.
    Namespace(String),
    /// `web.shop.svc`.
    Service(Namespaced),
    /// `_http._tcp.web.shop.svc`: Service, port and protocol, both without underscore. An empty
    /// one stands for all.
    Port(Namespaced, String, String),
    /// `web-0.web.shop.svc`, `10-244-0-5.web.shop.svc`.
    Endpoint(Namespaced, String),
    /// `10-244-0-5.shop.pod`, whatever stands before it: namespace, the label as it was written,
    /// and the address that it spells.
    Pod(String, String, IpAddr),
    /// No name of the specification.
    Nothing,
}

impl Form {
    /// Reads the labels below the domain, as CoreDNS does.
    fn of(labels: &[&str]) -> Self {
        let service = |ns: &str, name: &str| Namespaced::new(ns, name);
        // The underscores of a port and its protocol may be left out.
        let bare = |label: &str| label.strip_prefix('_').unwrap_or(label).to_owned();
        match *labels {
            [] | [""] => Self::Apex,
            ["ns", "dns"] => Self::Server,
            ["dns-version"] => Self::Version,
            ["svc" | "pod"] => Self::Inner,
            [ns, "svc" | "pod"] => Self::Namespace(ns.to_owned()),
            [name, ns, "svc"] => Self::Service(service(ns, name)),
            [host, name, ns, "svc"] => Self::Endpoint(service(ns, name), host.to_owned()),
            // Whatever port, whatever protocol: the Service itself.
            ["_", "_", name, ns, "svc"] => Self::Service(service(ns, name)),
            [port, proto, name, ns, "svc"] => {
                Self::Port(service(ns, name), bare(port), bare(proto))
            }
            [ip, ns, "pod"] | [_, ip, ns, "pod"] | [_, _, ip, ns, "pod"] => match undashed(ip) {
                Some(address) => Self::Pod(ns.to_owned(), ip.to_owned(), address.to_canonical()),
                None => Self::Nothing,
            },
            _ => Self::Nothing,
        }
    }

    /// What has to be known for an answer.
    pub(super) fn subject(&self) -> Option<Subject> {
        match self {
            Self::Namespace(ns) | Self::Pod(ns, ..) => Some(Subject::Namespace(ns.clone())),
            Self::Service(name) | Self::Port(name, ..) => Some(Subject::Service(name.clone())),
            Self::Endpoint(name, host) => Some(Subject::Endpoint(name.clone(), host.clone())),
            Self::Apex | Self::Server | Self::Version | Self::Inner | Self::Nothing => None,
        }
    }

    /// Whether it may be meant by a name without the domain: it is something in a namespace.
    fn is_concrete(&self) -> bool {
        matches!(
            self,
            Self::Service(_) | Self::Port(..) | Self::Endpoint(..) | Self::Pod(..)
        )
    }
}

/// Where a name belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below the cluster's domain, which nobody else answers for.
    Cluster(Form),
    /// The reverse name of an address.
    Reverse(IpAddr),
    /// Without the domain: what it would mean to a pod's search list, in its order. With
    /// `certain` it ends as only the cluster's names do.
    Relative { forms: Vec<Form>, certain: bool },
    /// Not the cluster's.
    Elsewhere,
}

/// Longest name below the domain that means anything, in labels.
const MOST_LABELS: usize = 5;

impl Place {
    /// Reads a name. `namespace` is where a bare `web` is looked for.
    pub(super) fn of(name: &Name, domain: &str, namespace: &str) -> Self {
        let text = lower(name);
        if let Some(rest) = text.strip_suffix(domain) {
            if rest.is_empty() {
                return Self::Cluster(Form::Apex);
            }
            if let Some(below) = rest.strip_suffix('.') {
                return Self::Cluster(Form::of(&below.split('.').collect::<Vec<_>>()));
            }
        }
        if text.ends_with(".arpa") {
            return reverse(name).map_or(Self::Elsewhere, Self::Reverse);
        }
        if text.is_empty() || text == "localhost" || text.ends_with(".localhost") {
            return Self::Elsewhere;
        }
        let mut labels = [""; MOST_LABELS + 3];
        let mut count = 0;
        for label in text.split('.') {
            if count == MOST_LABELS {
                return Self::Elsewhere;
            }
            labels[count] = label;
            count += 1;
        }
        let certain = count >= 3 && matches!(labels[count - 1], "svc" | "pod");
        let mut forms = Vec::new();
        let searches: &[&[&str]] = if certain {
            &[&[]]
        } else {
            &[&[namespace, "svc"], &["svc"], &[]]
        };
        for search in searches {
            labels[count..count + search.len()].copy_from_slice(search);
            let form = Form::of(&labels[..count + search.len()]);
            if form.is_concrete() {
                forms.push(form);
            }
        }
        if forms.is_empty() && !certain {
            return Self::Elsewhere;
        }
        Self::Relative { forms, certain }
    }
}

/// The name in lower case without the final dot. What stands in no Kubernetes name, a dot inside
/// of a label above all, becomes a question mark.
pub(super) fn lower(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte),
            b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
            _ => '?',
        }));
    }
    text
}

/// The whole address that a reverse name is of.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use proptest::prelude::*;

    use super::super::zone::dashed;
    use super::*;

    fn place(name: &str) -> Place {
        let mut name = Name::from_str(name).unwrap();
        name.set_fqdn(true);
        Place::of(&name, "cluster.local", "dev")
    }

    fn web() -> Namespaced {
        Namespaced::new("shop", "web")
    }

    fn pod(label: &str, ip: &str) -> Form {
        Form::Pod("shop".into(), label.into(), ip.parse().unwrap())
    }

    #[test]
    fn names_of_the_specification() {
        for (name, form) in [
            ("cluster.local", Form::Apex),
            ("CLUSTER.Local", Form::Apex),
            ("dns-version.cluster.local", Form::Version),
            ("ns.dns.cluster.local", Form::Server),
            ("svc.cluster.local", Form::Inner),
            ("shop.svc.cluster.local", Form::Namespace("shop".into())),
            ("Web.shop.svc.cluster.local", Form::Service(web())),
            (
                "_tcp.web.shop.svc.cluster.local",
                Form::Endpoint(web(), "_tcp".into()),
            ),
            (
                "_http._tcp.web.shop.svc.cluster.local",
                Form::Port(web(), "http".into(), "tcp".into()),
            ),
            ("_._.web.shop.svc.cluster.local", Form::Service(web())),
            (
                "http._.web.shop.svc.cluster.local",
                Form::Port(web(), "http".into(), String::new()),
            ),
            (
                "web-0.web.shop.svc.cluster.local",
                Form::Endpoint(web(), "web-0".into()),
            ),
            (
                "10-0-0-1.shop.pod.cluster.local",
                pod("10-0-0-1", "10.0.0.1"),
            ),
            ("fd00--1.shop.pod.cluster.local", pod("fd00--1", "fd00::1")),
            (
                "a.b.fd00--1.shop.pod.cluster.local",
                pod("fd00--1", "fd00::1"),
            ),
            ("a.b.c.fd00--1.shop.pod.cluster.local", Form::Nothing),
            ("web.shop.pod.cluster.local", Form::Nothing),
            ("a.b.c.web.shop.svc.cluster.local", Form::Nothing),
            ("dns.cluster.local", Form::Nothing),
            ("x.cluster.local", Form::Nothing),
        ] {
            assert_eq!(place(name), Place::Cluster(form), "{name}");
        }
    }

    #[test]
    fn names_without_the_domain_are_read_as_a_pods_search_list_does() {
        let relative = |name: &str| match place(name) {
            Place::Relative { forms, certain } => (forms, certain),
            other => panic!("{name}: {other:?}"),
        };
        let service = |ns: &str, name: &str| Form::Service(Namespaced::new(ns, name));
        assert_eq!(relative("web"), (vec![service("dev", "web")], false));
        let (forms, certain) = relative("web.shop");
        assert_eq!(forms[1], service("shop", "web"));
        assert_eq!(
            forms[0],
            Form::Endpoint(Namespaced::new("dev", "shop"), "web".into())
        );
        assert!(!certain);
        assert_eq!(
            relative("web.shop.svc").0.last(),
            Some(&service("shop", "web"))
        );
        assert!(relative("web.shop.svc").1);
        for elsewhere in [
            "a.b.c.d.e.example.org",
            "localhost",
            "web.localhost",
            "x.arpa",
            "a.b.c.xcluster.local.org",
        ] {
            let place = place(elsewhere);
            assert_eq!(place, Place::Elsewhere, "{elsewhere}");
        }
    }

    #[test]
    fn a_dot_inside_of_a_label_makes_no_other_name() {
        let name = Name::from_labels([&b"web.shop"[..], b"svc", b"cluster", b"local"]).unwrap();
        assert_eq!(
            Place::of(&name, "cluster.local", "dev"),
            Place::Cluster(Form::Namespace("web?shop".into()))
        );
    }

    proptest! {
        #[test]
        fn addresses_survive_as_labels_and_as_reverse_names(bits: u128, four: bool) {
            let ip: IpAddr = if four { (bits as u32).to_be_bytes().into() } else { bits.to_be_bytes().into() };
            prop_assert_eq!(undashed(&dashed(ip)), Some(ip));
            prop_assert_eq!(Place::of(&Name::from(ip), "cluster.local", "dev"), Place::Reverse(ip));
        }

        #[test]
        fn any_name_is_read(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
            if let Ok(name) = Name::from_labels(labels.iter().map(Vec::as_slice)) {
                let _ = Place::of(&name, "cluster.local", "dev");
            }
        }
    }
}
