//! What kdev says otherwise than CoreDNS, and means to. All else is equal, but for TTLs, the zone's
//! serial (a time in CoreDNS; nobody transfers kdev's zone) and the flag "recursion available",
//! which kdev sets because the laptop's resolvers stand behind it.

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use super::Stage;
use super::asking::Question;

/// An answer that differs.
pub(super) struct Differs {
    pub(super) question: Question,
    /// What kdev says.
    kdev: String,
    why: &'static str,
}

/// All of them. CoreDNS has no resolver behind it in the lab, as `forward` would be.
pub(super) fn all(namespace: &str) -> Vec<Differs> {
    let soa = |zone: &str| {
        format!("authority {zone}. soa ns.dns.{zone}. hostmaster.{zone}. [7200, 1800, 86400] 5")
    };
    let zone = "cluster.local";
    let within = |name: &str| format!("{name}.{namespace}.svc.{zone}");
    let rows = [
        (
            zone.to_owned(),
            RecordType::NS,
            format!("NoError aa; {zone}. ns ns.dns.{zone}."),
            "which Service is the cluster's DNS cannot be told; the server that answers is named",
        ),
        (
            format!("ns.dns.{zone}"),
            RecordType::A,
            format!("NoError aa; ns.dns.{zone}. a 127.0.0.79"),
            "as above",
        ),
        (
            within("out-known"),
            RecordType::A,
            format!(
                "NoError aa; {}. cname wiki.corp.example.; wiki.corp.example. a 192.0.2.7",
                within("out-known")
            ),
            "names outside of the cluster are the laptop's resolvers'",
        ),
        (
            "wiki.corp.example".to_owned(),
            RecordType::A,
            "NoError; wiki.corp.example. a 192.0.2.7".to_owned(),
            "as above",
        ),
        (
            "9.9.251.10.in-addr.arpa".to_owned(),
            RecordType::PTR,
            "NXDomain".to_owned(),
            "so are addresses that nobody in the cluster has, as with `fallthrough in-addr.arpa`",
        ),
        (
            within("mixed"),
            RecordType::A,
            format!("NXDomain aa; {}", soa(zone)),
            "endpoints are taken from a Service's pods, which needs no right to see EndpointSlices; \
             those that somebody adds to a selector's are not seen",
        ),
        (
            within("fqdn"),
            RecordType::A,
            format!("NXDomain aa; {}", soa(zone)),
            "`addressType: FQDN` is deprecated, no controller makes it, and kube-proxy ignores it",
        ),
        (
            "9.2.0.192.in-addr.arpa".to_owned(),
            RecordType::PTR,
            "NXDomain".to_owned(),
            "the cluster is not asked about public addresses: it would learn whom the laptop talks to",
        ),
    ];
    let rows = rows.into_iter();
    rows.map(|(name, kind, kdev, why)| Differs {
        question: (name, kind),
        kdev,
        why,
    })
    .collect()
}

/// The Services of them.
pub(super) const SERVICES: [&str; 4] = ["out-known", "mixed", "fqdn", "public"];

/// What these speak of, and nothing else does.
pub(super) fn objects() -> Vec<Value> {
    let slice = |name: &str, family: &str, address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": family, "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": [address]}],
        })
    };
    let service = |name: &str, spec: Value| {
        let metadata = json!({"name": name});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    };
    let ports = json!([{"name": "http", "port": 80}]);
    let known = json!({"type": "ExternalName", "externalName": "wiki.corp.example"});
    let mixed = json!({"clusterIP": "None", "selector": {"app": "nobody"}, "ports": ports});
    vec![
        service("out-known", known),
        service("mixed", mixed),
        slice("mixed", "IPv4", "10.250.9.10"),
        service("fqdn", json!({"clusterIP": "None", "ports": ports})),
        slice("fqdn", "FQDN", "db.corp.example"),
        service("public", json!({"clusterIP": "None", "ports": ports})),
        slice("public", "IPv4", "192.0.2.9"),
    ]
}

impl Differs {
    /// They do differ, and kdev says what it shall.
    pub(super) fn check(&self, stage: &mut Stage) {
        let [own, other] = stage.both(&self.question);
        assert_eq!(own.to_string(), self.kdev, "{:?}", self.question);
        assert_ne!(
            own, other,
            "{:?} does not differ: {}",
            self.question, self.why
        );
    }
}
