//! Less than the role `edit`: the two roles that an administrator may hand out instead.

use std::time::Duration;

use super::app::App;
use super::session::{Intercept, LAG};
use super::{assert_as_before, call, from_a_pod, reasons};
use crate::manifests::Roles;
use crate::program::{finish, kdev};
use crate::team::Team;

/// A Service whose selector has a key that no other of the namespace has.
const OTHER_KEY: &str = "apiVersion: v1
kind: Service
metadata: {name: wide}
spec: {selector: {app: orders, zone: a}, ports: [{port: 80}]}
";

#[test]
#[ignore = "needs the lab"]
fn the_two_roles_of_the_manifests_are_enough() {
    let team = Team::set_up("roles-alone", true);
    let orders = team.address("orders");
    let _roles = Roles::apply();
    let user = team.place.site.account("plain");
    Roles::bind(&team.place.site, "kdev-use", &user.0);
    let before = team.objects();
    let app = App::of("ann");
    let to = app.port.to_string();
    let command = |args: &[&str]| {
        let mut command = kdev(&user.0);
        command.args(args).env("KDEV_OWNER", "ann");
        command
    };
    let header = ["--header", "x-user: ann", "--to", &to];
    let intercept = [&["intercept", "orders:http", "--json"], &header[..]].concat();

    // With the first one alone it is said what is missing, and nothing changes.
    let refused = finish(&mut command(&intercept), b"").failed();
    assert!(refused.contains("secrets"), "{refused}");
    assert!(team.objects() == before, "{refused}");

    Roles::bind(&team.place.site, "kdev-intercept", &user.0);
    // The API server reads roles from a cache.
    let live = (0..10).find_map(|_| {
        std::thread::sleep(Duration::from_millis(500));
        Intercept::attempt(&mut command(&intercept)).ok()
    });
    let live = live.expect("both roles are enough");
    std::thread::sleep(LAG);
    assert_eq!(call(&orders, &["-H", "x-user: ann"]), app.name);
    assert!(from_a_pod(&call(&orders, &[])));
    let listed = finish(&mut command(&["list", "--json"]), b"").json();
    assert_eq!(listed[0]["claims"][0]["owner"], "ann", "{listed}");
    finish(&mut command(&["leave", "orders"]), b"").ok();
    drop(live);
    assert!(from_a_pod(&call(&orders, &["-H", "x-user: ann"])));
    finish(&mut command(&["restore"]), b"").ok();
    assert_as_before(&team, &before);
    // Neither of them changes what runs, so a key that no Service had before takes somebody else.
    for what in [
        "deployments",
        "deployments/kdev-relay",
        "configmaps",
        "pods",
        "secrets",
    ] {
        let asked = ["-n", &team.place.site.0, "patch", what];
        assert!(!user.may(&asked), "patch {what}");
    }
    team.place.site.apply(OTHER_KEY);
    let refused = finish(&mut command(&["intercept", "wide", "--to", &to]), b"").failed();
    println!("{refused}");
    let fix = format!("kdev upgrade -n {}", team.place.site.0);
    assert!(
        refused.contains("the label zone") && refused.contains(&fix),
        "{refused}"
    );
    team.place
        .kdev(&["upgrade", "--relay-binary", &crate::installed::RELAY])
        .ok();
    let labels = ".spec.template.metadata.labels.zone";
    assert_eq!(
        team.place.site.field("deployment/kdev-relay", labels),
        "kdev-relay"
    );
    team.place
        .site
        .kubectl(&["delete", "service", "wide"])
        .unwrap();
    // They may make no events.
    assert_eq!(reasons(&team, "orders"), [""; 0]);
}
