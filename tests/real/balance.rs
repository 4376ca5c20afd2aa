//! Many short requests to a Service of four pods: none fails, each pod gets its share, also while
//! a rolling restart replaces them all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::app::Way;
use crate::lab;
use crate::program::Running;
use crate::site::Site;

const REQUESTS: usize = 400;
const AT_A_TIME: usize = 100;
const REPLICAS: usize = 4;
/// No replica may get more than this part of all requests.
const LARGEST_SHARE: f64 = 0.4;

/// How long a rolling restart may take: four times a start, and the last pod's 5 s of preStop.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two rounds during it: enough rounds to meet every replaced pod, without keeping
/// the machine so busy that readiness probes fail.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// Pods that a scenario may restart, each of which says its name.
const OWN_WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 33, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 20
      containers:
        - name: nginx
          image: kdev-lab/server:1
          imagePullPolicy: Never
          command: [nginx, -c, /etc/nginx-lab.conf]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 1}
          lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"#;

/// What came of many requests.
#[derive(Debug, Default)]
struct Tally {
    by_pod: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (pod, count) in other.by_pod {
            *self.by_pod.entry(pod).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    fn total(&self) -> usize {
        self.by_pod.values().sum::<usize>() + self.failures.len()
    }

    fn assert_no_failure(&self, what: &str) {
        let first = &self.failures[..self.failures.len().min(5)];
        assert!(
            first.is_empty(),
            "{what}: {} of {} requests failed: {first:#?}",
            self.failures.len(),
            self.total()
        );
    }

    fn assert_even(&self, what: &str) {
        assert_eq!(self.by_pod.len(), REPLICAS, "{what}: {:?}", self.by_pod);
        let most = *self.by_pod.values().max().unwrap();
        let share = most as f64 / self.total() as f64;
        assert!(
            share <= LARGEST_SHARE,
            "{what}: {share:.2}: {:?}",
            self.by_pod
        );
    }
}

/// Sends `count` requests to `target`, each on a connection of its own, over `ways` in turn.
async fn burst(ways: &[Way], target: &str, count: usize) -> Tally {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (next, ways, target) = (next.clone(), ways.to_vec(), target.to_owned());
        workers.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return tally;
                }
                let way = ways[i % ways.len()];
                match way.get(&target, "/").await {
                    Ok(answer) if answer.status == 200 => {
                        *tally.by_pod.entry(answer.text()).or_default() += 1;
                    }
                    Ok(answer) => {
                        let text = answer.text();
                        tally
                            .failures
                            .push(format!("{way:?}: {}: {text}", answer.status));
                    }
                    Err(failure) => tally.failures.push(format!("{way:?}: {failure}")),
                }
            }
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = workers.join_next().await {
        all.add(tally.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn requests_are_spread_over_all_replicas() {
    lab::settle();
    let proxy = Running::connect("dev");
    let port = Running::forward("dev", &["web.shop:80"]);
    let [socks5, connect, absolute] = proxy.ways();
    for way in [socks5, connect, absolute, Way::Port(port.port(0))] {
        let begun = Instant::now();
        let tally = burst(&[way], "web.shop:80", REQUESTS).await;
        let what = format!("{way:?}");
        tally.assert_no_failure(&what);
        assert_eq!(tally.total(), REQUESTS);
        tally.assert_even(&what);
        let rate = REQUESTS as f64 / begun.elapsed().as_secs_f64();
        println!("{what}: {rate:.0}/s, {:?}", tally.by_pod);
    }
    proxy.stop();
    port.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_rolling_restart_costs_no_request() {
    let site = Site::create("rollout");
    let target = &*format!("web.{}:80", site.0);
    site.apply(OWN_WEB);
    let rollout = ["rollout", "status", "deployment/web", "--timeout=90s"];
    site.kubectl(&rollout).unwrap();
    let old = lab::ready(&site.0, "app=web").unwrap();
    let proxy = Running::connect("admin");
    // The pods of the workload itself, too, each connection those that are ready then.
    let workload = &*format!("deploy/web.{}:http", site.0);
    let port = Running::forward("admin", &[target, workload]);
    let mut ways = proxy.ways().to_vec();
    ways.extend([Way::Port(port.port(0)), Way::Port(port.port(1))]);
    let mut all = burst(&ways, target, AT_A_TIME).await;
    site.kubectl(&["rollout", "restart", "deployment/web"])
        .unwrap();
    let begun = Instant::now();
    loop {
        all.add(burst(&ways, target, AT_A_TIME).await);
        let present = tokio::task::block_in_place(|| {
            let pods = ["get", "pods", "-l", "app=web", "-o", "name"];
            site.kubectl(&pods).unwrap()
        });
        if !old.iter().any(|pod| present.contains(pod.as_str())) {
            break;
        }
        assert!(begun.elapsed() < ROLLOUT_LIMIT, "{present}");
        tokio::time::sleep(ROUND_PAUSE).await;
    }
    all.add(burst(&ways, target, AT_A_TIME).await);
    println!(
        "{} requests during {:?} of rollout, {:?}",
        all.total(),
        begun.elapsed(),
        all.by_pod
    );
    all.assert_no_failure("during the rollout");
    assert!(all.total() >= REQUESTS, "{}", all.total());
    // Every pod, old and new, had its part.
    assert_eq!(all.by_pod.len(), 2 * REPLICAS, "{:?}", all.by_pod);
    proxy.stop();
    port.stop();
}
