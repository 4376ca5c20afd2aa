use super::*;
use serde_json::json;
use std::ffi::OsString;

fn engine() -> Engine {
    Engine::new(Kind::Docker, OsString::from("docker"), Vec::new())
}

#[test]
fn network_flags_name_a_network() {
    for (kind, written, name) in [
        (Kind::Docker, "dev", "dev"),
        (Kind::Docker, "default", ""),
        (Kind::Docker, "bridge", "bridge"),
        (Kind::Docker, "name=dev,alias=web", "dev"),
        (Kind::Docker, "alias=web,name=dev", "dev"),
        (Kind::Docker, "container:web", "container:web"),
        (Kind::Docker, "host", "host"),
        (Kind::Podman, "bridge", ""),
        (Kind::Podman, "private", ""),
        (Kind::Podman, "bridge:ip=10.88.0.9", ""),
        (Kind::Podman, "dev:alias=web,ip=10.89.0.2", "dev"),
        (Kind::Podman, "pasta:--map-gw", "pasta"),
        (
            Kind::Podman,
            "slirp4netns:allow_host_loopback=true",
            "slirp4netns",
        ),
        (Kind::Podman, "container:web", "container:web"),
        (Kind::Nerdctl, "dev", "dev"),
    ] {
        assert_eq!(mode(kind, written), name, "{written}");
    }
}

#[test]
fn gateways_as_engines_write_them() {
    let of = |kind, network: Value| gateway(&network, kind, &engine()).map(|ip| ip.to_string());
    let docker =
        |config: Value| json!({"Name": "n", "Driver": "bridge", "IPAM": {"Config": config}});
    for (config, ip) in [
        (
            json!([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]),
            "172.18.0.1",
        ),
        // The default bridge of Docker before 26, while nobody set its address.
        (json!([{"Subnet": "172.17.0.0/16"}]), "172.17.0.1"),
        (
            json!([{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.254/24"}]),
            "10.9.0.254",
        ),
        (
            json!([{"Subnet": "fd00::/64", "Gateway": "fd00::1"}, {"Subnet": "10.9.0.0/24"}]),
            "10.9.0.1",
        ),
        (json!([{"Subnet": "fd00::/64"}]), "fd00::1"),
    ] {
        assert_eq!(of(Kind::Docker, docker(config)).unwrap(), ip);
    }
    let podman = json!({"name": "podman", "driver": "bridge",
        "subnets": [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]});
    assert_eq!(of(Kind::Podman, podman).unwrap(), "10.88.0.1");
    let nerdctl = json!({"Name": "bridge",
        "IPAM": {"Config": [{"Subnet": "10.4.0.0/24", "Gateway": "10.4.0.1"}]}});
    assert_eq!(of(Kind::Nerdctl, nerdctl).unwrap(), "10.4.0.1");
}

#[test]
fn networks_that_do_not_lead_here_are_refused() {
    let of = |network: Value| gateway(&network, Kind::Podman, &engine()).unwrap_err();
    let macvlan = of(json!({"Name": "lan", "Driver": "macvlan"}));
    assert!(
        matches!(macvlan, ContainerError::Driver { .. }),
        "{macvlan}"
    );
    let internal = of(json!({"name": "i", "driver": "bridge", "internal": true,
        "subnets": [{"subnet": "10.89.0.0/24"}]}));
    assert!(
        matches!(internal, ContainerError::NoGateway { .. }),
        "{internal}"
    );
    let isolated = of(json!({"Name": "i", "Driver": "bridge",
        "Options": {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"},
        "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}}));
    assert!(isolated.to_string().contains("isolated"), "{isolated}");
}
