//! NetworkPolicies, enforced by kube-router: whatever they forbid, callers are never cut off.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::app::App;
use super::session::{Intercept, command};
use crate::lab;
use crate::team::Team;

/// Caller pods: one that policies let through, and one that they do not speak of.
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
/// How long enforcers take to know of a policy.
const ENFORCED: Duration = Duration::from_secs(4);

/// A team, a caller, and an enforcer that stays.
fn set_up(what: &str) -> Team {
    lab::script("policies", &["on"]).unwrap();
    let team = Team::set_up(what, true);
    team.place.site.apply(CALLER);
    let wait = [
        "wait",
        "--for=condition=Ready",
        "pod/caller",
        "--timeout=60s",
    ];
    team.place.site.kubectl(&wait).unwrap();
    team
}

/// Requests of the caller's, one after the other, until it is stopped.
struct Calls(Child);

impl Calls {
    fn begin(team: &Team) -> Self {
        let script = "while :; do if curl -sf -o /dev/null -m 2 http://orders; then echo ok; \
                      else echo lost; fi; sleep 0.05; done";
        let admin = lab::kubeconfig("admin");
        let child = Command::new("kubectl")
            .args([
                "--kubeconfig",
                admin.to_str().unwrap(),
                "-n",
                &team.place.site.0,
            ])
            .args(["exec", "caller", "--", "sh", "-c", script])
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
}

/// An attempt that must be refused; gives what it said.
fn refused(team: &Team, app: &App) -> String {
    let to = app.port.to_string();
    let args = ["orders", "--to", &to, "--header", "x-user: ann"];
    match Intercept::attempt(&mut command(team, &app.owner, &args)) {
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
    if lab::older_than(31, "nothing enforces NetworkPolicies there") {
        return;
    }
    let team = set_up("policy");
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
        let (well, lost, _) = calls.end();
        println!("{by}: {well} calls, {lost} lost");
        assert!(well > 10 && lost == 0, "{well} {lost}");
        assert_eq!(site.object("service/orders"), before);
        if policies == CLOSED {
            // As the refusal says.
            let said = team.place.install(&["--network-policy", "on"]).err;
            assert!(said.contains("NetworkPolicy kdev-relay created"), "{said}");
            std::thread::sleep(ENFORCED);
            let calls = Calls::begin(&team);
            let live = Intercept::live(&team, &ann, &["orders", "--header", "x-user: ann"]);
            std::thread::sleep(Duration::from_secs(2));
            live.end();
            let (well, lost, _) = calls.end();
            println!("intercepted: {well} calls, {lost} lost");
            assert!(well > 10 && lost == 0, "{well} {lost}");
        }
        let all = ["delete", "networkpolicies", "--all"];
        site.kubectl(&all).unwrap();
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_policy_that_comes_in_the_middle_ends_the_intercept_within_seconds() {
    if lab::older_than(31, "nothing enforces NetworkPolicies there") {
        return;
    }
    let team = set_up("shut");
    let (site, ann) = (&team.place.site, App::of("ann"));
    let live = Intercept::live(&team, &ann, &["orders", "--header", "x-user: ann"]);
    let calls = Calls::begin(&team);
    std::thread::sleep(Duration::from_secs(1));
    site.apply(SHUT);
    let (code, why) = live.over();
    println!("{why}");
    assert_eq!(code, Some(1));
    assert!(why.contains("NetworkPolicy no-relay"), "{why}");
    assert!(why.contains("has its own pods again"), "{why}");
    std::thread::sleep(Duration::from_secs(3));
    let (well, lost, row) = calls.end();
    println!("{well} calls, {lost} lost, {row} in a row");
    // Twenty a second where they are refused.
    assert!(well > 20 && lost < 60, "{well} {lost}");
}
