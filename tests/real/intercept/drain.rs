//! Connections from before: they come along when the pods at their other end are replaced.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::app::App;
use super::beside::now;
use super::pods::PODS;
use super::session::{Intercept, LAG};
use super::{assert_as_before, from_a_pod};
use crate::callers::{Manner, PLAIN};
use crate::lab;
use crate::team::Team;

/// How long all pods may take: each has a few seconds until it is ready.
const LIMIT: Duration = Duration::from_secs(90);
/// How long after the last was deleted it goes: what it does before it stops, and its grace.
const GONE: Duration = Duration::from_secs(15);

#[test]
#[ignore = "needs the lab"]
fn connections_from_before_come_along_when_pods_are_replaced() {
    let team = Team::set_up("drain", true);
    team.scale(PODS);
    let before = team.objects();
    let ready = || -> BTreeSet<String> {
        let ready = lab::ready(&team.place.site.0, "app=orders").unwrap();
        ready.into_iter().collect()
    };
    let old = ready();
    assert_eq!(old.len(), PODS);
    let ann = App::of("ann");
    let [fresh, kept] = PLAIN;
    let anns = Manner {
        name: "ann",
        headers: &[("x-user", "ann")],
        threads: 8,
        ..kept
    };
    let connections = kept.threads + anns.threads;
    let load = team.load_of("orders", &[fresh, kept, anns]);
    std::thread::sleep(Duration::from_secs(1));

    let live = Intercept::live(
        &team,
        &ann,
        &["orders", "--header", "x-user: ann", "--drain"],
    );
    let (begun, began) = (Instant::now(), now());
    let is = |words: &str| {
        let mut notes = live.events("note").into_iter();
        notes.any(|note| note["text"].as_str().unwrap().contains(words))
    };
    let mut least = PODS;
    while !is("all pods were replaced") {
        least = least.min(ready().len());
        assert!(begun.elapsed() < LIMIT, "{}", live.told());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!(
        "all replaced after {:?}; at least {least} ready",
        begun.elapsed()
    );
    assert!(least >= PODS - 1, "{least}");
    assert!(
        old.iter().all(|pod| is(&format!("pod {pod} is replaced"))),
        "{}",
        live.told()
    );
    assert!(ready().is_disjoint(&old), "{:?} {old:?}", ready());
    std::thread::sleep(GONE);
    let moved = now();
    std::thread::sleep(Duration::from_secs(3));
    let stopped = now();
    live.end();
    std::thread::sleep(LAG);
    let calls = load.stop();

    let failed = |manner| calls.of(manner).filter(|call| call.status != 200).count();
    let broken = failed("kept") + failed("ann");
    println!("{broken} requests of {connections} kept connections found theirs closed");
    assert_eq!(failed("fresh"), 0, "{:?}", calls.failures());
    // Each connection ends with its pod, once.
    assert!(broken <= connections, "{:?}", calls.failures());
    let (mut early, mut late) = (0, 0);
    for call in calls.of("ann").filter(|call| call.status == 200) {
        if call.begun > moved && call.begun + call.took < stopped {
            assert_eq!(call.answer, ann.name, "{call:?}");
            late += 1;
        } else if call.begun < began {
            assert!(from_a_pod(&call.answer), "{call:?}");
            early += 1;
        }
    }
    println!("of ann's kept connections {early} requests before, {late} after");
    assert!(early > 50 && late > 100, "{early} {late}");
    let plain = calls.of("kept").chain(calls.of("fresh"));
    let plain: Vec<_> = plain.filter(|call| call.status == 200).collect();
    assert!(plain.iter().all(|call| from_a_pod(&call.answer)));
    assert_as_before(&team, &before);
}

/// Three pods with fixed names, and a budget that lets none of them go.
const DB: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 33, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 2
      containers:
        - name: nginx
          image: kdev-lab/server:1
          imagePullPolicy: Never
          command: [nginx, -c, /etc/nginx-lab.conf]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {minAvailable: 3, selector: {matchLabels: {app: db}}}
"#;

#[test]
#[ignore = "needs the lab"]
fn a_stateful_set_is_replaced_as_far_as_its_budget_allows() {
    if lab::older_than(22, "policy/v1 came with 1.21, evictions by it with 1.22") {
        return;
    }
    let team = Team::set_up("evict", true);
    let site = &team.place.site;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), DB).unwrap();
    site.kubectl(&["apply", "-f", file.path().to_str().unwrap()])
        .unwrap();
    let ready = || lab::ready(&site.0, "app=db").unwrap().len();
    site.wait("three pods", |_| ready() == 3);
    let uids = || {
        let names = ["db-0", "db-1", "db-2"];
        names.map(|pod| site.field(&format!("pod/{pod}"), ".metadata.uid"))
    };
    let before = uids();
    let ann = App::of("ann");
    let live = Intercept::live(&team, &ann, &["db", "--header", "x-user: ann", "--drain"]);
    live.notes(
        "The disruption budget db needs 3 healthy pods and has 3 currently",
        LIMIT,
    );
    assert_eq!(uids(), before, "{}", live.told());
    let spec = r#"{"spec": {"minAvailable": 2}}"#;
    site.kubectl(&["patch", "pdb", "db", "--type", "merge", "-p", spec])
        .unwrap();
    let (begun, mut least) = (Instant::now(), 3);
    let is_done = || {
        let mut notes = live.events("note").into_iter();
        notes.any(|note| note["text"] == "all pods were replaced")
    };
    while !is_done() {
        least = least.min(ready());
        assert!(begun.elapsed() < LIMIT, "{}", live.told());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!(
        "all replaced after {:?}, at least {least} ready",
        begun.elapsed()
    );
    assert!(least >= 2, "{least}");
    let after = uids();
    let differ = before.iter().zip(&after).all(|(old, new)| old != new);
    assert!(differ, "{before:?} {after:?}");
    live.end();
}
