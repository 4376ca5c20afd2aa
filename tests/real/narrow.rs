//! Users whose rights are narrow: some pods, some requests in another's name, little of the API
//! server's time.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kdev::k8s::{Client, KubeOptions};
use kdev::task::Tasks;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{Failure, Way};
use crate::lab::{self, Global};
use crate::program::{Done, Running, finish_within, kdev_with};
use crate::site::{Account, Site};

/// How long a run may take: the API server asks for up to 32 s at once.
const LIMIT: Duration = Duration::from_secs(90);
/// How long, and by how many, the API server is kept busy.
const BUSY: Duration = Duration::from_secs(5);
const BUSY_WITH: usize = 6;
/// What kdev says when it waits for it.
const WAITS: &str = "asks to wait";

/// Three pods behind the Service `web` in a namespace of its own, and somebody who may do nothing.
struct Stage {
    site: Site,
    account: Account,
    /// Objects outside of the namespace, which go with the stage.
    global: Vec<Global>,
}

impl Stage {
    fn set_up(what: &str) -> Self {
        let site = Site::create(what);
        let set = json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": site.0},
            "spec": {
                "replicas": 3,
                "podManagementPolicy": "Parallel",
                "serviceName": "web",
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "securityContext": {
                            "runAsNonRoot": true,
                            "runAsUser": 33,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [{
                            "name": "web",
                            "image": "kdev-lab/server:1",
                            "imagePullPolicy": "Never",
                            "command": ["python3", "-m", "http.server", "8080"],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {
                                "tcpSocket": {"port": "http"},
                                "periodSeconds": 1,
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }],
                    },
                },
            },
        });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": site.0},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        });
        lab::apply(&set.to_string());
        lab::apply(&service.to_string());
        let account = site.account(what);
        site.wait("its pods", |site| {
            lab::ready(&site.0, "app=web").is_ok_and(|pods| pods.len() == 3)
        });
        Self {
            site,
            account,
            global: Vec::new(),
        }
    }

    /// Gives rules in the namespace to the account, or to `user` instead.
    fn allow(&self, name: &str, rules: &Value, user: Option<&str>) {
        let group = "rbac.authorization.k8s.io";
        let subject = match user {
            Some(user) => json!({"kind": "User", "apiGroup": group, "name": user}),
            None => self.site.subject(&self.account),
        };
        self.site.allow(name, rules, &subject);
    }

    fn kdev(&self, args: &[&str]) -> Command {
        let mut command = kdev_with(&self.account.kubeconfig());
        command.args(args);
        command
    }

    /// What `curl` gets from `web` in a run of its own.
    fn fetch(&self, flags: &[&str]) -> Done {
        let mut command = self.kdev(flags);
        command.args(["run", "--own-session", "--", "curl", "-sS", "-m", "60"]);
        command.args(["-o", "/dev/null", "-w", "%{http_code}", "http://web/"]);
        finish_within(LIMIT, &mut command, b"")
    }

    fn doctor(&self, flags: &[&str]) -> Value {
        let mut command = self.kdev(flags);
        let done = finish_within(LIMIT, command.args(["doctor", "--json"]), b"");
        serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {done:?}"))
    }
}

/// One check of the doctor's document.
fn check<'a>(document: &'a Value, id: &str) -> &'a Value {
    let mut checks = document["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {document:#}"))
}

fn look(verbs: [&str; 3]) -> Value {
    json!({"apiGroups": [""], "resources": ["pods", "services"], "verbs": verbs})
}

#[test]
#[ignore = "needs the lab"]
fn the_pods_that_a_role_names_take_the_dials() {
    let stage = Stage::set_up("narrow");
    let forward = json!({
        "apiGroups": [""],
        "resources": ["pods/portforward"],
        "resourceNames": ["web-2"],
        "verbs": ["get", "create"],
    });
    let rules = json!([look(["get", "list", "watch"]), forward]);
    stage.allow("narrow", &rules, None);
    // Each run begins at some pod; one of three is allowed.
    for _ in 0..6 {
        let done = stage.fetch(&[]);
        assert_eq!(done.out, "200", "{done:?}");
    }
    let found = stage.doctor(&[]);
    assert_eq!(found["ok"], true, "{found:#}");
    let right = check(&found, "permission.create.pods/portforward");
    assert_eq!(right["detail"], "allowed on these pods only: web-2");
    let forward = check(&found, "port-forward")["detail"].as_str().unwrap();
    assert!(forward.contains("(pod web-2)"), "{forward}");
    println!("{forward}");
}

#[test]
#[ignore = "needs the lab"]
fn an_impersonation_for_some_requests_only_is_enough() {
    if lab::older_than(36, "constrained impersonation came with 1.36") {
        return;
    }
    let mut stage = Stage::set_up("actor");
    let (group, name) = ("rbac.authorization.k8s.io", stage.account.0.clone());
    let user = format!("jane-{name}");
    let api = format!("{group}/v1");
    stage.global.push(Global::apply(&json!({
        "apiVersion": api,
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{
            "apiGroups": ["authentication.k8s.io"],
            "resources": ["users"],
            "resourceNames": [user],
            "verbs": ["impersonate:user-info"],
        }],
    })));
    stage.global.push(Global::apply(&json!({
        "apiVersion": api,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [stage.site.subject(&stage.account)],
    })));
    let on = ["get", "list", "watch"].map(|verb| format!("impersonate-on:user-info:{verb}"));
    let on = [&*on[0], &*on[1], &*on[2]];
    let forward = |verbs: [&str; 2]| json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": verbs});
    let create = "impersonate-on:user-info:create";
    let acting = json!([look(on), forward([on[0], create])]);
    stage.allow("acting", &acting, None);
    let own = json!([look(["get", "list", "watch"]), forward(["get", "create"])]);
    stage.allow("own", &own, Some(&user));

    let done = stage.fetch(&["--as", &user]);
    assert_eq!(
        (done.out.as_str(), done.err.as_str()),
        ("200", ""),
        "{done:?}"
    );
    let found = stage.doctor(&["--as", &user]);
    assert_eq!(found["ok"], true, "{found:#}");
    let checks = found["checks"].as_array().unwrap();
    let said = checks.iter().filter(|check| {
        let detail = check["detail"].as_str().unwrap();
        detail.contains("cannot impersonate")
    });
    let said: Vec<_> = said.map(|check| &check["id"]).collect();
    assert_eq!(said, ["permissions"], "{found:#}");
    assert_eq!(check(&found, "speed")["status"], "ok");
    println!("{}", check(&found, "permissions")["detail"]);

    // Who may act as nobody learns it before the command starts.
    let done = stage.fetch(&["--as", "somebody-else"]);
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.err.contains("cannot impersonate"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_busy_api_server_is_waited_for() {
    if lab::older_than(29, "flowcontrol.apiserver.k8s.io/v1 came with 1.29") {
        return;
    }
    let mut stage = Stage::set_up("busy");
    let forward =
        json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]});
    let rules = json!([look(["get", "list", "watch"]), forward]);
    stage.allow("dev", &rules, None);
    // A priority level of the account's own that lets one request in at a time.
    let name = stage.account.0.clone();
    let api = "flowcontrol.apiserver.k8s.io/v1";
    stage.global.push(Global::apply(&json!({
        "apiVersion": api,
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 0,
                "lendablePercent": 0,
                "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        },
    })));
    let everything = json!({
        "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
        "namespaces": ["*"], "clusterScope": true,
    });
    stage.global.push(Global::apply(&json!({
        "apiVersion": api,
        "kind": "FlowSchema",
        "metadata": {"name": name},
        "spec": {
            "matchingPrecedence": 100,
            "priorityLevelConfiguration": {"name": name},
            "rules": [{
                "subjects": [{
                    "kind": "ServiceAccount",
                    "serviceAccount": {"namespace": stage.site.0, "name": name},
                }],
                "resourceRules": [everything],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        },
    })));

    let tasks = Tasks::new();
    let options = KubeOptions {
        kubeconfig: Some(stage.account.kubeconfig()),
        ..KubeOptions::default()
    };
    let client = Client::connect(options, &tasks).await.unwrap().impatient();
    let turned_away = Arc::new(AtomicU64::new(0));
    let connect = Running::start(&mut stage.kdev(&["connect", "--json"]));
    for _ in 0..BUSY_WITH {
        let (client, turned_away) = (client.clone(), turned_away.clone());
        tasks.spawn(async move {
            let until = Instant::now() + BUSY;
            while Instant::now() < until {
                let read = client.text("/openapi/v2").await;
                if read.is_err_and(|error| error.code() == Some(429)) {
                    turned_away.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while turned_away.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    // In mid-session: the API server is asked for a name that nobody knows, and says that there is none.
    let way = Way::Connect(connect.proxy());
    let mut asked = JoinSet::new();
    asked.spawn(async move { way.open("nobody:80").await.map(drop) });
    let (mut runs, mut waited) = (0, 0);
    while begun.elapsed() < BUSY {
        let done = tokio::task::block_in_place(|| stage.fetch(&[]));
        assert_eq!(done.out, "200", "{done:?}");
        let waits = done.err.matches(WAITS).count();
        assert!(waits <= 1, "{done:?}");
        (runs, waited) = (runs + 1, waited + waits);
        println!("after {:?}: {}", begun.elapsed(), done.err.trim());
    }
    match asked.join_next().await.unwrap().unwrap() {
        Err(Failure::Status(502, text)) if text.contains("was not found") => {}
        other => panic!("{other:?}"),
    }
    println!("the session said: {}", connect.said());
    waited += connect.said().matches(WAITS).count();
    let turned_away = turned_away.load(Ordering::Relaxed);
    println!("{runs} runs, while {turned_away} requests of others were turned away");
    assert!(turned_away > 0 && waited > 0, "it was not busy");
    connect.stop();
}
