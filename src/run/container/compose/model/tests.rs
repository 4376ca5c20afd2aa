use super::*;

static NO_SCALES: BTreeMap<String, u64> = BTreeMap::new();
static NO_OTHERS: BTreeMap<String, Other> = BTreeMap::new();

/// What is asked for where nothing in particular is.
const USUAL: Asked<'static> = Asked {
    active: &[],
    only: &[],
    scales: &NO_SCALES,
    one_off: None,
    pull: None,
    session: "s1",
    others: &NO_OTHERS,
    image: "kdev-companion:1",
};

/// What becomes of the services `services`, all of which are started, in project `shop`.
fn joined_as(services: Value, asked: Asked<'_>) -> (Value, Joined) {
    let mut model = json!({"name": "shop", "services": services});
    let active = model["services"].as_object().unwrap().keys();
    let active: Vec<String> = active.cloned().collect();
    let active = &active[..];
    let joined = join(&mut model, &Asked { active, ..asked }).unwrap();
    (model["services"].take(), joined)
}

fn joined(services: Value) -> (Value, Joined) {
    joined_as(services, USUAL)
}

/// Those that have companions, and those that stay outside.
fn shares(joined: &Joined) -> (Vec<&str>, Vec<&str>) {
    let companions = joined.companions.iter().map(|placed| &*placed.service);
    let outside = joined.outside.iter().map(|(service, _)| &**service);
    (companions.collect(), outside.collect())
}

#[test]
fn a_companion_gets_the_network_and_nothing_else() {
    let (services, joined) = joined(json!({"web": {
        "image": "web:1",
        "build": {"context": "/src"},
        "command": ["serve"],
        "environment": {"A": "$$1"},
        "networks": {"default": null, "back": {"aliases": ["www"], "ipv4_address": "10.9.0.7"}},
        "ports": [{"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}],
        "expose": ["9000"],
        "hostname": "box",
        "dns": ["10.1.1.1"],
        "dns_search": ["corp.example"],
        "extra_hosts": ["host.docker.internal=host-gateway"],
        "sysctls": {"net.core.somaxconn": "1024", "kernel.shm_rmid_forced": "1"},
        "restart": "always",
        "volumes": [{"type": "bind", "source": "/src", "target": "/src"}],
        "depends_on": {"db": {"condition": "service_healthy", "required": true}},
        "healthcheck": {"test": ["CMD", "true"]},
        "cap_add": ["SYS_PTRACE"],
    }}));
    assert_eq!(
        services["web"],
        json!({
            "image": "web:1",
            "build": {"context": "/src"},
            "command": ["serve"],
            "environment": {"A": "$$1"},
            "network_mode": "service:kdev-web",
            "sysctls": {"kernel.shm_rmid_forced": "1"},
            "restart": "always",
            "volumes": [{"type": "bind", "source": "/src", "target": "/src"}],
            "depends_on": {
                "db": {"condition": "service_healthy", "required": true},
                "kdev-web": {"condition": "service_started", "restart": true, "required": true},
            },
            "healthcheck": {"test": ["CMD", "true"]},
            "cap_add": ["SYS_PTRACE"],
            "labels": {"dev.kdev.session": "s1"},
        })
    );
    let shape = services["kdev-web"]["labels"]["dev.kdev.shape"].clone();
    assert_eq!(shape.as_str().map(str::len), Some(12));
    assert_eq!(
        services["kdev-web"],
        json!({
            "image": "kdev-companion:1",
            "pull_policy": "never",
            "command": ["hold"],
            "user": "0:0",
            "cap_drop": ["ALL"],
            "cap_add": ["NET_ADMIN", "NET_BIND_SERVICE"],
            "attach": false,
            "logging": {"driver": "none"},
            "labels": {"dev.kdev.companion": "s1", "dev.kdev.shape": shape},
            "networks": {
                "default": {"aliases": ["web", "shop-web-1"]},
                "back": {"aliases": ["www", "web", "shop-web-1"], "ipv4_address": "10.9.0.7"},
            },
            "ports": [{"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}],
            "expose": ["9000"],
            "hostname": "box",
            "dns": ["127.77.0.53"],
            "dns_search": ["corp.example"],
            "extra_hosts": ["host.docker.internal=host-gateway", "host.kdev.internal:192.0.0.11"],
            "sysctls": {"net.core.somaxconn": "1024"},
            "restart": "always",
        })
    );
    let [placed] = &joined.companions[..] else {
        panic!("{joined:?}");
    };
    assert_eq!(placed.resolvers, ["10.1.1.1"]);
    assert_eq!(placed.name, "kdev-web");
}

#[test]
fn without_a_word_about_its_network_a_service_has_the_usual() {
    let (services, joined) = joined(json!({
        "web": {"image": "web", "container_name": "front", "networks": {"default": null}},
        "old": {"image": "old", "network_mode": "bridge"},
    }));
    assert_eq!(
        services["kdev-web"]["networks"],
        json!({"default": {"aliases": ["web", "front"]}})
    );
    assert_eq!(services["web"]["container_name"], "front");
    assert_eq!(services["kdev-web"]["dns_search"], json!(["."]));
    // Names are not known there, with or without kdev.
    assert_eq!(services["kdev-old"]["network_mode"], "bridge");
    assert!(services["kdev-old"].get("networks").is_none());
    assert!(
        joined
            .companions
            .iter()
            .all(|placed| placed.resolvers.is_empty())
    );
}

#[test]
fn what_has_no_network_of_its_own_stays_outside() {
    let (services, joined) = joined(json!({
        "web": {"image": "web"},
        "host": {"image": "x", "network_mode": "host"},
        "none": {"image": "x", "network_mode": "none"},
        "other": {"image": "x", "network_mode": "container:abc"},
        "side": {"image": "x", "network_mode": "service:web"},
        "aside": {"image": "x", "network_mode": "service:host"},
        "uts": {"image": "x", "uts": "host"},
        "many": {"image": "x", "scale": 3},
        "replicas": {"image": "x", "deploy": {"replicas": 2}},
        "model": {"provider": {"type": "model"}},
    }));
    let (companions, mut outside) = shares(&joined);
    outside.sort_unstable();
    assert_eq!(companions, ["web"]);
    assert_eq!(
        outside,
        [
            "aside", "host", "many", "model", "none", "other", "replicas", "uts"
        ]
    );
    // What shares the network of one that sees the cluster sees it too.
    assert_eq!(services["side"]["network_mode"], "service:kdev-web");
    assert_eq!(services["aside"]["network_mode"], "service:host");
    assert_eq!(services["many"], json!({"image": "x", "scale": 3}));
}

#[test]
fn the_command_line_has_the_last_word_on_scale_and_pull() {
    let scales = [("web".to_owned(), 2), ("many".to_owned(), 1)];
    let scales = scales.into_iter().collect();
    let services = json!({"web": {"image": "x"}, "many": {"image": "x", "scale": 5}});
    let asked = Asked {
        scales: &scales,
        pull: Some("always"),
        ..USUAL
    };
    let (services, joined) = joined_as(services, asked);
    assert_eq!(shares(&joined), (vec!["many"], vec!["web"]));
    assert_eq!(services["web"]["pull_policy"], "always");
    assert_eq!(services["many"]["pull_policy"], "always");
    // Nobody has it but this machine.
    assert_eq!(services["kdev-many"]["pull_policy"], "never");
}

#[test]
fn labels_say_which_services_see_the_cluster() {
    let no = json!({"labels": {"dev.kdev.capture": "false"}, "image": "x"});
    let yes = json!({"labels": {"dev.kdev.capture": "true"}, "image": "x"});
    let (_, joined_no) = joined(json!({"a": {"image": "x"}, "b": no}));
    assert_eq!(shares(&joined_no), (vec!["a"], vec![]));
    let (_, joined_yes) = joined(json!({"a": {"image": "x"}, "b": no, "c": yes}));
    assert_eq!(shares(&joined_yes), (vec!["c"], vec![]));
    // The command line has the last word.
    let only = ["b".to_owned()];
    let services = json!({"a": {"image": "x"}, "b": no, "c": yes});
    let (_, joined_only) = joined_as(
        services,
        Asked {
            only: &only,
            ..USUAL
        },
    );
    assert_eq!(shares(&joined_only), (vec!["b"], vec![]));
}

#[test]
fn what_does_not_start_cannot_be_asked_for() {
    let mut model = json!({"name": "shop", "services": {"web": {"image": "x"}}});
    let asked = Asked {
        active: &["web".to_owned()],
        only: &["wep".to_owned()],
        ..USUAL
    };
    let why = join(&mut model, &asked).unwrap_err();
    assert_eq!(why, "service wep is not among those that start: web");
}

#[test]
fn links_lead_to_companions() {
    let (services, _) = joined(json!({
        "db": {"image": "x"},
        "web": {"image": "x", "links": ["db", "db:database", "far:f"]},
        "out": {"image": "x", "scale": 2, "links": ["web:w"]},
    }));
    assert!(services["web"].get("links").is_none());
    let links = json!(["kdev-db:db", "kdev-db:database", "far:f"]);
    assert_eq!(services["kdev-web"]["links"], links);
    assert_eq!(services["out"]["links"], json!(["kdev-web:w"]));
}

#[test]
fn services_that_are_not_started_stay_as_they_are() {
    let services = json!({
        "web": {"image": "x", "profiles": ["a"]},
        "tool": {"image": "x", "profiles": ["debug"], "ports": []},
    });
    let mut model = json!({"name": "shop", "services": services});
    let asked = Asked {
        active: &["web".to_owned()],
        pull: Some("never"),
        ..USUAL
    };
    join(&mut model, &asked).unwrap();
    let services = &model["services"];
    assert_eq!(
        services["tool"],
        json!({"image": "x", "profiles": ["debug"], "ports": []})
    );
    assert!(services["web"].get("profiles").is_none());
    assert_eq!(services["web"]["pull_policy"], "never");
}

/// A companion of `web` in [`two`] that is there, made from what that says or from something else.
fn other(same: bool, served: bool) -> BTreeMap<String, Other> {
    let (services, _) = joined(two());
    let shape = services["kdev-web"]["labels"]["dev.kdev.shape"].as_str();
    let shape = if same { shape.unwrap() } else { "another" }.to_owned();
    let session = "s0".to_owned();
    let other = Other {
        session,
        shape,
        served,
    };
    BTreeMap::from([("web".to_owned(), other)])
}

fn two() -> Value {
    json!({"web": {"image": "x", "ports": [80]}, "job": {"image": "x"}})
}

/// The labels of the companion of `web` and of `web`, where they are.
fn sessions(services: &Value) -> [&str; 2] {
    [("kdev-web", companion::LABEL), ("web", command::LABEL)]
        .map(|(service, label)| services[service]["labels"][label].as_str().unwrap_or(""))
}

#[test]
fn what_another_kdev_serves_stays_as_it_is_or_is_refused() {
    let only = ["job".to_owned()];
    for only in [&only[..], &[]] {
        let others = &other(true, true);
        let (services, joined) = joined_as(
            two(),
            Asked {
                others,
                only,
                ..USUAL
            },
        );
        assert_eq!(sessions(&services), ["s0", "s0"]);
        let kept = joined.companions.iter().map(|it| (&*it.name, it.kept));
        let kept: Vec<_> = kept.collect();
        assert_eq!(kept, [("kdev-job", false), ("kdev-web", true)]);
        assert_eq!(joined.stale, [""; 0]);
    }
    let mut scaled = two();
    scaled["web"]["scale"] = json!(2);
    for (services, same) in [(two(), false), (scaled, true)] {
        let mut model = json!({"name": "shop", "services": services});
        let asked = Asked {
            active: &["job".to_owned(), "web".to_owned()],
            others: &other(same, true),
            ..USUAL
        };
        let why = join(&mut model, &asked).unwrap_err();
        assert!(why.contains("another kdev serves web"), "{why}");
    }
}

#[test]
fn what_nobody_serves_is_made_anew_or_is_in_the_way() {
    for same in [true, false] {
        let others = &other(same, false);
        let (services, joined) = joined_as(two(), Asked { others, ..USUAL });
        assert_eq!(sessions(&services), ["s1", "s1"]);
        assert_eq!(joined.stale, [""; 0]);
        // It has the ports, but the service is to have them.
        let only = ["job".to_owned()];
        let only = &only[..];
        let (services, joined) = joined_as(
            two(),
            Asked {
                others,
                only,
                ..USUAL
            },
        );
        assert_eq!(sessions(&services), ["", ""]);
        assert_eq!(joined.stale, ["web"]);
    }
    // Nor is it touched when the service is not.
    let mut model = json!({"name": "shop", "services": two()});
    let asked = Asked {
        active: &["job".to_owned()],
        others: &other(false, false),
        ..USUAL
    };
    let joined = join(&mut model, &asked).unwrap();
    assert_eq!(joined.stale, [""; 0]);
    assert_eq!(sessions(&model["services"]), ["", ""]);
}

#[test]
fn what_one_container_needs_stays_as_it_is() {
    let one_off = OneOff::default();
    let only = ["job".to_owned()];
    for (same, served, session, stale) in [
        (true, true, "s0", &[][..]),
        (true, false, "s0", &[]),
        (false, false, "", &["web"]),
    ] {
        let asked = Asked {
            one_off: Some(&one_off),
            only: &only,
            others: &other(same, served),
            ..USUAL
        };
        let (services, joined) = joined_as(two(), asked);
        assert_eq!(sessions(&services), [session; 2], "{same} {served}");
        assert_eq!(joined.stale, stale, "{same} {served}");
        let its = "service:kdev-job-run-s1";
        assert_eq!(services["job"]["network_mode"], its);
    }
    // One beside a service that is up has a network of its own.
    let asked = Asked {
        one_off: Some(&one_off),
        only: &["web".to_owned()],
        others: &other(true, true),
        ..USUAL
    };
    let (services, joined) = joined_as(two(), asked);
    let its = "service:kdev-web-run-s1";
    assert_eq!(services["web"]["network_mode"], its);
    assert!(!joined.companions[0].kept);
}

#[test]
fn strays_of_kdev_are_known() {
    let mut model = json!({"name": "shop", "services": two()});
    let names = ["kdev-web-run-s0", "web"].map(str::to_owned);
    know(&mut model, names.into_iter());
    let stub = json!({"image": NOBODYS, "profiles": [NOBODYS]});
    assert_eq!(model["services"]["kdev-web-run-s0"], stub);
    assert_eq!(model["services"]["web"], two()["web"]);
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let services = json!({"web": {"image": "x"}, "kdev-web": {"image": "x", "scale": 2}});
    let mut model = json!({"name": "shop", "services": services});
    let active = ["web".to_owned(), "kdev-web".to_owned()];
    let asked = Asked {
        active: &active,
        ..USUAL
    };
    let why = join(&mut model, &asked).unwrap_err();
    assert!(why.contains("service kdev-web"), "{why}");
}

#[test]
fn a_container_beside_its_service_has_its_own_ports_and_no_names() {
    let services = json!({"web": {
        "image": "x",
        "ports": [{"target": 80, "published": "8080"}],
        "networks": {"default": null, "back": {"aliases": ["www"], "priority": 1}},
    }});
    let its_own = OneOff {
        ports: vec!["9000:80".to_owned()],
        ..OneOff::default()
    };
    let only = ["web".to_owned()];
    let of = |one_off| Asked {
        one_off: Some(one_off),
        only: &only,
        ..USUAL
    };
    let (changed, _) = joined_as(services.clone(), of(&its_own));
    assert_eq!(changed["kdev-web-run-s1"]["ports"], json!(["9000:80"]));
    let networks = json!({"default": null, "back": {"priority": 1}});
    assert_eq!(changed["kdev-web-run-s1"]["networks"], networks);
    let its_services = OneOff {
        service_ports: true,
        aliases: true,
        ..OneOff::default()
    };
    let (changed, _) = joined_as(services, of(&its_services));
    assert_eq!(changed["kdev-web-run-s1"]["ports"][0]["published"], "8080");
    let aliases = json!(["www", "web", "shop-web-1"]);
    assert_eq!(
        changed["kdev-web-run-s1"]["networks"]["back"]["aliases"],
        aliases
    );
}
