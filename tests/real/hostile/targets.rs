//! Where the relay does not go for anybody.

use kdev::dial::DialError;
use kdev::tunnel::TUNNEL_PORT;

use super::Stage;
use crate::peer;

/// Addresses that clouds answer metadata on, each with what it is called.
const METADATA: [(&str, &str); 7] = [
    ("169.254.169.254", "link-local"),
    ("169.254.170.2", "link-local"),
    ("100.100.100.200", "metadata service of Alibaba Cloud"),
    ("168.63.129.16", "metadata service of Azure"),
    ("192.0.0.192", "metadata service of Oracle Cloud"),
    ("127.0.0.1", "own loopback"),
    ("0.0.0.0", "the relay itself"),
];

/// IPv6 forms of an IPv4 address that something on the way may translate back.
fn disguises(ip: &str) -> Vec<String> {
    let octets: Vec<u16> = ip.split('.').map(|octet| octet.parse().unwrap()).collect();
    let (high, low) = (octets[0] << 8 | octets[1], octets[2] << 8 | octets[3]);
    let low_bits = format!("{high:x}:{low:x}");
    vec![
        format!("[::ffff:{ip}]"),
        format!("[64:ff9b::{low_bits}]"),
        format!("[64:ff9b:1::{low_bits}]"),
        format!("[2002:{low_bits}::1]"),
        format!("[::ffff:0:{low_bits}]"),
        format!("[fe80::5efe:{low_bits}]"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn metadata_is_refused_in_every_form_with_the_reason() {
    let stage = Stage::set_up("targets");
    // A name for one, in the pod's own /etc/hosts.
    let aliases = r#"{"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}, "template": {"spec": {"hostAliases": [{"ip": "169.254.169.254", "hostnames": ["metadata.internal"]}]}}}}"#;
    stage
        .site
        .kubectl(&["patch", "deployment", "kdev-relay", "-p", aliases])
        .unwrap();
    let old = stage.relay.name.clone();
    let with_alias = |relays: &[String]| matches!(relays, [one] if *one != old);
    let relay = &stage.site.await_relays_that(with_alias)[0];
    let relay = super::Pod::find(&stage.site.0, relay);
    let io = relay.dial(TUNNEL_PORT).await.unwrap();
    let opener = peer::tunnel(io, &stage.keys[0]).await.unwrap();
    let mut all: Vec<(String, &str)> = vec![
        ("metadata.internal".to_owned(), "link-local"),
        ("[fd00:ec2::254]".to_owned(), "metadata service of AWS"),
        (
            "[fd20:ce::254]".to_owned(),
            "metadata service of Google Cloud",
        ),
        ("[fe80::1]".to_owned(), "link-local"),
        ("[::1]".to_owned(), "own loopback"),
    ];
    for (ip, why) in METADATA {
        all.push((ip.to_owned(), why));
        all.extend(disguises(ip).into_iter().map(|form| (form, why)));
    }
    let count = all.len();
    for (host, why) in all {
        let target = format!("{host}:80");
        let refused = peer::dial(&opener, &target).await;
        let Err(DialError::Forbidden { reason, .. }) = refused else {
            panic!("{target}: {refused:?}");
        };
        assert!(
            reason.contains(why) || reason.contains("link-local"),
            "{target}: {reason}"
        );
        assert!(
            reason.contains("which the relay does not reach"),
            "{target}: {reason}"
        );
    }
    // And what it may reach, it reaches.
    peer::get(&opener, "web.shop:80").await;
    let failed = relay.metric("kdev_relay_dials_failed_total");
    assert_eq!(failed, count as f64);
}
