//! NetworkPolicies, enforced by kube-router: whatever they forbid, callers are never cut off.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;
use super::session::{Intercept, command};
use crate::lab::{self, Global};
use crate::program::kdev;
use crate::site::Site;
use crate::team::Team;

/// A pod that calls.
const CALLER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: caller, labels: {app: caller}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 33, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: caller
      image: kdev-lab/server:1
      imagePullPolicy: Never
      command: [sleep, "3600"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;
/// Nobody gets in anywhere but `caller` and the relay into the app.
const CLOSED: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: orders-callers}
spec:
  podSelector: {matchLabels: {app: orders}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: caller}}
        - podSelector: {matchLabels: {app.kubernetes.io/name: kdev-relay}}
"#;
/// The caller may send to the app and ask for names.
const NARROW: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: caller-out}
spec:
  podSelector: {matchLabels: {app: caller}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: orders}}}]
    - ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
"#;
/// The relay does not get into the app, and everybody else does.
const SHUT: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-relay}
spec:
  podSelector: {matchLabels: {app: orders}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: caller}}}]
"#;
/// Nobody gets into the relay.
const ALONE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: relay-alone}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: kdev-relay}}
  policyTypes: [Ingress]
"#;
/// The relay gets out nowhere.
const KEPT_IN: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: relay-kept-in}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: kdev-relay}}
  policyTypes: [Egress]
"#;
/// How long enforcers take to know of a policy.
const ENFORCED: Duration = Duration::from_secs(4);

/// kube-router, until this is dropped.
struct Enforcer;

impl Enforcer {
    fn on() -> Self {
        lab::script("policies", &["on"]).unwrap();
        Self
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        if let Err(error) = lab::script("policies", &["off"]) {
            eprintln!("policies are still enforced: {error}");
        }
    }
}

/// A team and a caller, where policies are enforced; none where nothing can enforce them.
fn set_up(what: &str) -> Option<(Enforcer, Team)> {
    if lab::older_than(31, "nothing enforces NetworkPolicies there") {
        return None;
    }
    let enforcer = Enforcer::on();
    let team = Team::set_up(what, true);
    add_caller(&team.place.site);
    Some((enforcer, team))
}

fn add_caller(site: &Site) {
    site.apply(CALLER);
    let wait = [
        "wait",
        "--for=condition=Ready",
        "pod/caller",
        "--timeout=60s",
    ];
    site.kubectl(&wait).unwrap();
}

/// Requests of the caller's, one after the other, until it is stopped.
struct Calls(Child);

impl Calls {
    fn begin(team: &Team) -> Self {
        Self::by(&team.place.site, team)
    }

    /// Those of the caller in another namespace.
    fn by(callers: &Site, team: &Team) -> Self {
        let script = format!(
            "while :; do if curl -sf -o /dev/null -m 2 http://orders.{}; then echo ok; \
             else echo lost; fi; sleep 0.05; done",
            team.place.site.0
        );
        let admin = lab::kubeconfig("admin");
        let child = Command::new("kubectl")
            .args(["--kubeconfig", admin.to_str().unwrap(), "-n", &callers.0])
            .args(["exec", "caller", "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// How many went well, how many were lost, and the longest row of lost ones.
    fn end(mut self) -> (usize, usize, usize) {
        self.0.kill().unwrap();
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines.map_while(Result::ok).collect();
        self.0.wait().unwrap();
        let lost = lines.iter().filter(|line| *line == "lost").count();
        let rows = lines.split(|line| line == "ok").map(<[String]>::len);
        (lines.len() - lost, lost, rows.max().unwrap_or_default())
    }

    /// The same where none may be lost.
    fn end_whole(self, what: &str) {
        let (well, lost, _) = self.end();
        println!("{what}: {well} calls, {lost} lost");
        assert!(well > 10 && lost == 0, "{what}: {well} {lost}");
    }
}

/// Arguments for a personal intercept.
const PERSONAL: [&str; 3] = ["orders", "--header", "x-user: ann"];

/// An attempt that must be refused; gives what it said.
fn refused(team: &Team, app: &App) -> String {
    let to = app.port.to_string();
    let args = [&PERSONAL[..], &["--to", &to]].concat();
    refused_by(&mut command(team, &app.owner, &args))
}

fn refused_by(command: &mut Command) -> String {
    match Intercept::attempt(command) {
        Ok(live) => panic!("live: {}", live.told()),
        Err((code, said)) => {
            assert_eq!(code, Some(1), "{said}");
            said
        }
    }
}

#[test]
#[ignore = "needs the lab"]
fn callers_whom_a_policy_keeps_from_the_relay_lose_nothing() {
    let Some((_enforcer, team)) = set_up("policy") else {
        return;
    };
    let (site, ann) = (&team.place.site, App::of("ann"));
    for (policies, by, rule) in [
        (CLOSED, "NetworkPolicy deny", "--network-policy on"),
        (
            NARROW,
            "NetworkPolicy caller-out",
            "add to NetworkPolicy caller-out: egress:",
        ),
        (
            SHUT,
            "NetworkPolicy no-relay",
            "add to NetworkPolicy no-relay: ingress:",
        ),
    ] {
        site.apply(policies);
        std::thread::sleep(ENFORCED);
        let before = site.object("service/orders");
        let calls = Calls::begin(&team);
        std::thread::sleep(Duration::from_secs(1));
        let said = refused(&team, &ann);
        assert!(said.contains(by) && said.contains(rule), "{said}");
        std::thread::sleep(Duration::from_secs(1));
        calls.end_whole(by);
        assert_eq!(site.object("service/orders"), before);
        if policies == CLOSED {
            // At one's own risk.
            let forced = [&PERSONAL[..], &["--force"]].concat();
            let live = Intercept::live(&team, &ann, &forced);
            live.notes("by --force, although", Duration::from_secs(1));
            live.end();
            // As the refusal says.
            let said = team.place.install(&["--network-policy", "on"]).err;
            assert!(said.contains("NetworkPolicy kdev-relay created"), "{said}");
            std::thread::sleep(ENFORCED);
            let calls = Calls::begin(&team);
            let live = Intercept::live(&team, &ann, &PERSONAL);
            std::thread::sleep(Duration::from_secs(2));
            live.end();
            calls.end_whole("intercepted");
        }
        let all = ["delete", "networkpolicies", "--all"];
        site.kubectl(&all).unwrap();
    }
}

#[test]
#[ignore = "needs the lab"]
fn install_brings_a_policy_where_there_are_any() {
    let Some((_enforcer, team)) = set_up("brought") else {
        return;
    };
    team.place.site.apply(CLOSED);
    let said = team.place.install(&[]).err;
    assert!(said.contains("NetworkPolicy kdev-relay created"), "{said}");
    std::thread::sleep(ENFORCED);
    let calls = Calls::begin(&team);
    std::thread::sleep(Duration::from_secs(1));
    let live = Intercept::live(&team, &App::of("ann"), &PERSONAL);
    std::thread::sleep(Duration::from_secs(2));
    live.end();
    calls.end_whole("intercepted");
}

#[test]
#[ignore = "needs the lab"]
fn the_doctor_sees_a_relay_that_no_policy_lets_out() {
    let Some((_enforcer, team)) = set_up("kept-in") else {
        return;
    };
    let look = || -> (Value, Value) {
        let done = team.place.kdev(&["doctor", "--json"]);
        let found: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(found["ok"], true, "{found:#}");
        let one = |list: &str, key: &str, name: &str| {
            let mut all = found[list].as_array().unwrap().iter();
            all.find(|one| one[key] == name).unwrap().clone()
        };
        (
            one("answers", "command", "intercept"),
            one("checks", "id", "relay.reach"),
        )
    };
    let (answer, reach) = look();
    assert_eq!(answer["can"], true, "{answer:#}");
    assert_eq!(reach["status"], "ok", "{reach:#}");
    team.place.site.apply(KEPT_IN);
    std::thread::sleep(ENFORCED);
    let (answer, reach) = look();
    println!("{}", reach["detail"]);
    assert_eq!(reach["status"], "warn", "{reach:#}");
    assert_eq!(answer["can"], false, "{answer:#}");
    let fix = answer["fix"].as_str().unwrap();
    assert!(
        fix.contains("NetworkPolicy") && fix.contains("egress"),
        "{fix}"
    );
}

#[test]
#[ignore = "needs the lab"]
fn callers_of_another_namespace_are_looked_at_where_they_may_be_seen() {
    let Some((_enforcer, team)) = set_up("across") else {
        return;
    };
    let (site, ann) = (&team.place.site, App::of("ann"));
    let callers = Site::create("callers");
    add_caller(&callers);
    let app = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": site.0}},
        "podSelector": {"matchLabels": {"app": "orders"}},
    }]);
    let names = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "caller-out"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "caller"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": app}, {"ports": names}],
        },
    });
    callers.apply(&policy.to_string());
    let _view = Global::apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": site.0},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [site.subject(&team.place.account)],
    }));
    std::thread::sleep(ENFORCED);
    let calls = Calls::by(&callers, &team);
    std::thread::sleep(Duration::from_secs(1));
    let said = refused(&team, &ann);
    let by = format!("NetworkPolicy caller-out in namespace {}", callers.0);
    assert!(said.contains(&by), "{said}");
    std::thread::sleep(Duration::from_secs(1));
    calls.end_whole("across");
}

#[test]
#[ignore = "needs the lab"]
fn who_may_not_read_policies_cuts_nobody_off() {
    let Some((_enforcer, team)) = set_up("blind") else {
        return;
    };
    let (site, ann) = (&team.place.site, App::of("ann"));
    let blind = site.account("blind");
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let all = ["get", "list", "watch", "create", "patch", "delete"];
    let rules = json!([
        rule("", &["services"], &all),
        rule("", &["pods"], &all[..3]),
        rule("", &["pods/portforward"], &["get", "create"]),
        rule("", &["secrets"], &["get"]),
        rule("apps", &["deployments"], &["get"]),
        rule("", &["configmaps"], &["get", "patch"]),
        rule("discovery.k8s.io", &["endpointslices"], &["list"]),
    ]);
    site.allow("blind", &rules, &site.subject(&blind));
    site.apply(CLOSED);
    std::thread::sleep(ENFORCED);
    let before = site.object("service/orders");
    let calls = Calls::begin(&team);
    std::thread::sleep(Duration::from_secs(1));
    let to = ann.port.to_string();
    let mut command = kdev(&blind.0);
    command.env("KDEV_OWNER", "ann");
    command.args(["intercept", "--json", "--to", &to]);
    let said = refused_by(command.args(PERSONAL));
    println!("{said}");
    assert!(said.contains("--network-policy on"), "{said}");
    std::thread::sleep(Duration::from_secs(1));
    calls.end_whole("blind");
    assert_eq!(site.object("service/orders"), before);
}

#[test]
#[ignore = "needs the lab"]
fn a_policy_that_comes_in_the_middle_ends_the_intercept_within_seconds() {
    let Some((_enforcer, team)) = set_up("shut") else {
        return;
    };
    let (site, ann) = (&team.place.site, App::of("ann"));
    for (policy, name) in [(SHUT, "no-relay"), (ALONE, "relay-alone")] {
        let live = Intercept::live(&team, &ann, &PERSONAL);
        let calls = Calls::begin(&team);
        std::thread::sleep(Duration::from_secs(1));
        site.apply(policy);
        let (code, why) = live.over();
        println!("{why}");
        assert_eq!(code, Some(1));
        let by = format!("NetworkPolicy {name}");
        assert!(why.contains(&by), "{why}");
        assert!(why.contains("has its own pods again"), "{why}");
        std::thread::sleep(Duration::from_secs(3));
        let (well, lost, row) = calls.end();
        println!("{well} calls, {lost} lost, {row} in a row");
        // Twenty a second where they are refused.
        assert!(well > 20 && lost < 60, "{well} {lost}");
        site.kubectl(&["delete", "networkpolicy", name]).unwrap();
        std::thread::sleep(ENFORCED);
    }
}
