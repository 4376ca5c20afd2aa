//! What is looked at before and after a Service is taken.

use serde_json::json;

use super::app::App;
use super::session::Intercept;
use super::{assert_as_before, call, from_a_pod};
use crate::install::Policy;
use crate::lab::{self, Blocked};
use crate::program::finish;
use crate::team::Team;

/// What `kdev intercept SERVICE` says, which must fail.
fn refused(team: &Team, app: &App, service: &str) -> String {
    let to = app.port.to_string();
    let mut command = team.place.command(&["intercept", service, "--to", &to]);
    let said = finish(command.env("KDEV_OWNER", &app.owner), b"").failed();
    println!("{said}");
    said
}

fn assert_says(said: &str, all: &[&str]) {
    for text in all {
        assert!(said.contains(text), "{text}: {said}");
    }
}

/// Keeps the relay from what its packets' rest says, in iptables' words.
fn block(team: &Team, rest: &str) -> Blocked {
    Blocked::from(&team.place.site.relay_addresses(), rest)
}

#[test]
#[ignore = "needs the lab"]
fn what_does_not_arrive_gives_the_service_back() {
    let team = Team::set_up("lost", true);
    let before = team.objects();
    let orders = team.address("orders");
    // Pods are reached, the Service's own address is not. Nobody calls meanwhile: that would be seen to arrive.
    let blocked = block(&team, &format!("-m conntrack --ctorigdst {orders}"));
    let ann = App::of("ann");
    let said = refused(&team, &ann, "orders:http");
    assert_says(
        &said,
        &[
            "connections to port http (80) of orders did not arrive at the relay",
            "the Service has its own pods again",
        ],
    );
    assert!(!said.contains("--force"), "{said}");
    assert!(from_a_pod(&call(&orders, &[])));
    drop(blocked);
    assert_as_before(&team, &before);
}

#[test]
#[ignore = "needs the lab"]
fn only_the_port_that_is_asked_for_must_be_reached() {
    let team = Team::set_up("ports", true);
    let ann = App::of("ann");
    let blocked = block(&team, "--dport 8080");
    let said = refused(&team, &ann, "orders:http");
    let waiting = "waiting for the relay to reach port http (80) of orders: ";
    assert!(said.matches(waiting).count() >= 2, "{said}");
    // Names of kdev's own are nobody's.
    assert!(!said.contains("kdev-20"), "{said}");
    drop(blocked);

    let _blocked = block(&team, "--dport 8081");
    let live = Intercept::live(&team, &ann, &["orders:http"]);
    let told = "does not reach port admin (9090) of orders";
    live.notes(told, std::time::Duration::from_secs(1));
    live.end();
}

#[test]
#[ignore = "needs the lab"]
fn what_cannot_be_intercepted_says_why() {
    let team = Team::set_up("unfit", true);
    let alias = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "alias"},
        "spec": {"type": "ExternalName", "externalName": "wiki.corp.example"},
    });
    team.place.site.apply(&alias.to_string());
    let ann = App::of("ann");
    let said = refused(&team, &ann, "alias");
    assert!(said.contains("it is an ExternalName"), "{said}");
    assert!(!said.contains("several ports"), "{said}");
}

#[test]
#[ignore = "needs the lab"]
fn policies_about_services_are_said_ahead_and_met() {
    if lab::older_than(30, "ValidatingAdmissionPolicies came with 1.30") {
        return;
    }
    let team = Team::set_up("labelled", true);
    let labelled = "!has(object.metadata.name) || !object.metadata.name.startsWith('kdev-') || \
                    (has(object.metadata.labels) && 'team' in object.metadata.labels)";
    let _policy = Policy::new(
        &team.place,
        "label",
        &["services"],
        labelled,
        "label team is required",
    );
    let before = team.objects();
    let ann = App::of("ann");
    let said = refused(&team, &ann, "orders:http");
    assert_says(
        &said,
        &[
            "Service kdev-2",
            "label team is required",
            "--label team=VALUE",
        ],
    );
    assert_as_before(&team, &before);
    let live = Intercept::live(&team, &ann, &["orders:http", "--label", "team=shop"]);
    let own = ["get", "services", "-l", "team=shop", "-o", "name"];
    let own = team.place.site.kubectl(&own).unwrap();
    assert!(own.starts_with("service/kdev-2"), "{own}");
    live.end();
    assert_as_before(&team, &before);
}
