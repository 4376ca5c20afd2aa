//! Clusters with policies: what would be refused is known before anything is made, and can be complied
//! with.

use serde_json::{Value, json};

use crate::support::{Stage, VERSION, program};

/// All that `kdev install` makes, and the pods.
const MADE: [&str; 5] = [
    "secrets",
    "configmaps",
    "poddisruptionbudgets",
    "deployments",
    "pods",
];

fn has_label(object: &Value, key: &str) -> Result<(), String> {
    match object["metadata"]["labels"][key].is_string() {
        true => Ok(()),
        false => Err(format!("label {key} is required")),
    }
}

#[tokio::test]
async fn all_that_would_be_refused_is_said_at_once_and_nothing_is_made() {
    let stage = Stage::new().await;
    let before = stage.all();
    let policies = &stage.cluster;
    policies.add_policy("labelled", &MADE, |object| has_label(object, "team"));
    policies.add_policy("registry", &["pods"], |pod| {
        let image = &pod["spec"]["containers"][0]["image"];
        let image = image.as_str().unwrap_or_default();
        match image.starts_with("registry.example/") {
            true => Ok(()),
            false => Err(format!("image {image} is not from registry.example")),
        }
    });
    let refused = stage.install(&[]).await.failed();
    for text in [
        "the cluster would refuse this, so nothing was changed",
        "Secret kdev-relay, Secret kdev-relay-intercept, ConfigMap kdev-relay-amd64-",
        "PodDisruptionBudget kdev-relay, Deployment kdev-relay, a pod of Deployment kdev-relay",
        "ValidatingAdmissionPolicy 'labelled' with binding 'labelled' denied request: label team is \
         required",
        "--label team=VALUE",
    ] {
        assert!(refused.contains(text), "{text} is not in {refused}");
    }
    assert_eq!(stage.all(), before);

    // With the label the next one shows, of the pod.
    let label = ["--label", "team=shop"];
    let refused = stage.install(&label).await.failed();
    assert!(
        refused.contains("a pod of Deployment kdev-relay: "),
        "{refused}"
    );
    assert!(refused.contains("not from registry.example"), "{refused}");
    assert!(refused.contains("--base-image or --image"), "{refused}");
    assert_eq!(stage.all(), before);
    let both = [&label[..], &["--base-image", "registry.example/busybox:1"]].concat();
    stage.install(&both).await.ok();

    // What is there already is labelled, too, and only once.
    policies.add_policy("billed", &MADE, |object| has_label(object, "cost-center"));
    let refused = stage.install(&[]).await.failed();
    assert!(refused.contains("--label cost-center=VALUE"), "{refused}");
    let labels = ["--label", "team=shop,cost-center=42"];
    stage.install(&labels).await.ok();
    for resource in MADE {
        let own = stage.cluster.objects(resource, "shop").into_iter();
        let own = own.filter(|o| o["metadata"]["labels"]["app.kubernetes.io/name"] == "kdev-relay");
        let own: Vec<Value> = own.collect();
        assert!(!own.is_empty(), "{resource}");
        for object in own {
            assert_eq!(
                object["metadata"]["labels"]["cost-center"], "42",
                "{object}"
            );
        }
    }
    let again = stage.install(&[]).await.ok();
    assert!(again.contains("Nothing to change"), "{again}");
    // And taken off.
    policies.remove_policy("labelled");
    policies.remove_policy("billed");
    stage.install(&["--label", "team=shop"]).await.ok();
    for (resource, name) in [("secrets", "kdev-relay"), ("deployments", "kdev-relay")] {
        let labels = &stage.object(resource, name).unwrap()["metadata"]["labels"];
        assert_eq!(
            (&labels["team"], labels.get("cost-center")),
            (&json!("shop"), None)
        );
    }
}

#[tokio::test]
async fn what_was_chosen_stays_with_an_upgrade_until_something_else_is_said() {
    let stage = Stage::new().await;
    let chosen = [
        "--label=team=shop",
        r"--annotation=note=a\,b",
        "--annotation=example.com/owner=ada",
        "--cpu-request=50m",
        "--cpu-limit=500m",
        "--memory-limit=256Mi",
        "--node-selector=disk=ssd",
        "--toleration=spot:NoSchedule,gpu=yes",
        "--priority-class=low",
        "--runtime-class=gvisor",
        "--image-pull-secret=regcred",
    ];
    stage.install(&chosen).await.ok();
    let deployment = || stage.object("deployments", "kdev-relay").unwrap();
    let check = |deployment: &Value| {
        let template = &deployment["spec"]["template"];
        for metadata in [&deployment["metadata"], &template["metadata"]] {
            assert_eq!(metadata["labels"]["team"], "shop");
            assert_eq!(metadata["annotations"]["note"], "a,b");
            assert_eq!(metadata["annotations"]["example.com/owner"], "ada");
        }
        let pod = &template["spec"];
        assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
        assert_eq!(
            pod["tolerations"],
            json!([
                {"key": "spot", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "gpu", "operator": "Equal", "value": "yes"},
            ])
        );
        assert_eq!(pod["priorityClassName"], "low");
        assert_eq!(pod["runtimeClassName"], "gvisor");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "regcred"}]));
        for kind in ["containers", "initContainers"] {
            let resources = &pod[kind][0]["resources"];
            assert_eq!(
                *resources,
                json!({
                    "requests": {"cpu": "50m", "memory": "16Mi"},
                    "limits": {"cpu": "500m", "memory": "256Mi"},
                })
            );
        }
    };
    check(&deployment());
    let again = stage.install(&[]).await.ok();
    assert!(again.contains("Nothing to change"), "{again}");
    stage.file("relay", &program("amd64", "99.0.0"));
    let upgraded = stage.with_program("upgrade", &["--json"]).await.json();
    assert_eq!(upgraded["was"], VERSION);
    check(&deployment());

    let taken_off = [
        "--label=",
        "--annotation=example.com/owner=bob",
        "--cpu-limit=",
        "--priority-class=",
        "--toleration=",
    ];
    stage.with_program("upgrade", &taken_off).await.ok();
    let deployment = deployment();
    assert_eq!(deployment["metadata"]["labels"].get("team"), None);
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["example.com/owner"], "bob");
    assert_eq!(annotations.get("note"), None);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(
        (pod.get("priorityClassName"), pod.get("tolerations")),
        (None, None)
    );
    assert_eq!(pod["runtimeClassName"], "gvisor");
    let resources = &pod["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"memory": "256Mi"}));
    assert_eq!(resources["requests"]["cpu"], "50m");
}

#[tokio::test]
async fn settings_say_it_too() {
    let stage = Stage::new().await;
    stage.file(
        ".kdev.toml",
        b"label = [\"team=shop\"]\nmemory-limit = \"200Mi\"\ntoleration = [\"spot:NoSchedule\"]\n",
    );
    let relay = stage.folder.path().join("relay").display().to_string();
    let mut command = stage.command(&["install", "--relay-binary", &relay, "--label", "team=flag"]);
    command.current_dir(stage.folder.path());
    command
        .env_remove("KDEV_PROJECT")
        .env("HOME", "/nonexistent");
    command.env("KDEV_CPU_REQUEST", "30m");
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let deployment = stage.object("deployments", "kdev-relay").unwrap();
    assert_eq!(deployment["metadata"]["labels"]["team"], "flag");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["tolerations"][0]["key"], "spot");
    let resources = &pod["containers"][0]["resources"];
    assert_eq!(resources["limits"]["memory"], "200Mi");
    assert_eq!(resources["requests"]["cpu"], "30m");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let stage = Stage::new().await;
    let before = stage.all();
    for (args, said) in [
        (&["--label", "team"][..], "is no label KEY=VALUE"),
        (
            &["--label", "kdev.dev/x=1"],
            "is for kdev or for Kubernetes to set",
        ),
        (&["--cpu-limit", "much"], "is no quantity"),
        (
            &["--toleration", "a:Never"],
            "NoSchedule, PreferNoSchedule, NoExecute",
        ),
        (
            &["--memory-request", "1Gi", "--memory-limit", "1Mi"],
            "--memory-request 1Gi is more than --memory-limit 1Mi",
        ),
        // A Service of the shop selects by it.
        (&["--label", "app=web"], " would select the relay's pods"),
    ] {
        let done = stage.install(args).await;
        let text = format!("{done:?}");
        assert!(text.contains(said), "{args:?}: {text}");
    }
    assert_eq!(stage.all(), before);
}

#[tokio::test]
async fn quotas_are_added_up_over_all_that_is_to_be_made() {
    let stage = Stage::new().await;
    let before = stage.all();
    let pods = stage.cluster.objects("pods", "shop").len();
    let secrets = stage.cluster.objects("secrets", "shop").len();
    for (key, room, what) in [
        ("pods", pods + 1, "2 relay pods more: exceeded quota: few"),
        (
            "count/secrets",
            secrets + 1,
            "Secret kdev-relay, Secret kdev-relay-intercept: exceeded quota: few",
        ),
    ] {
        let quota = json!({
            "metadata": {"name": "few", "namespace": "shop"},
            "spec": {"hard": {key: room.to_string()}},
        });
        stage.cluster.put_object("resourcequotas", quota);
        counted(&stage, key).await;
        let refused = stage.install(&[]).await.failed();
        assert!(refused.contains("nothing was changed"), "{refused}");
        assert!(refused.contains(what), "{refused}");
        assert!(refused.contains("larger quota"), "{refused}");
        assert_eq!(stage.all(), before);
        stage.cluster.remove_object("resourcequotas", "shop", "few");
    }
}

/// Waits until a quota's status says how much of `key` is used.
async fn counted(stage: &Stage, key: &str) {
    while stage.object("resourcequotas", "few").unwrap()["status"]["used"]
        .get(key)
        .is_none()
    {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A policy that comes between the dry run and the pods: as one that only means controllers.
fn refuse_real_pods(stage: &Stage) {
    stage.cluster.add_policy("later", &["pods"], |pod| {
        let dry = pod["metadata"]["generateName"].is_string();
        match dry {
            true => Ok(()),
            false => Err("no pods today".to_owned()),
        }
    });
}

#[tokio::test]
async fn what_was_made_is_taken_back_when_the_pods_are_refused() {
    let stage = Stage::new().await;
    let before = stage.all();
    refuse_real_pods(&stage);
    let done = stage.install(&[]).await;
    let said = done.failed();
    assert!(said.contains("no pod can be made (FailedCreate)"), "{said}");
    assert!(said.contains("no pods today"), "{said}");
    assert!(
        said.contains("what this run has made is taken back: Secret kdev-relay,"),
        "{said}"
    );
    assert_eq!(stage.all(), before);

    // With --keep it stays, and is said to.
    let said = stage.install(&["--keep"]).await.failed();
    assert!(
        said.contains("--keep was given; left in namespace shop: Secret kdev-relay,"),
        "{said}"
    );
    assert!(said.contains("kdev uninstall -n shop"), "{said}");
    assert!(stage.object("deployments", "kdev-relay").is_some());
    // Another run takes nothing back that it has not made.
    let there = stage.all();
    stage.install(&[]).await.failed();
    assert_eq!(stage.all(), there);
}

#[tokio::test]
async fn an_object_that_is_refused_after_all_takes_the_others_along() {
    let stage = Stage::new().await;
    let mine = json!({"metadata": {"name": "mine", "namespace": "shop"}, "data": {}});
    stage.cluster.put_object("configmaps", mine);
    let before = stage.all();
    // Once, in the dry run, it lets the Deployment pass.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    stage
        .cluster
        .add_policy("moody", &["deployments"], move |_| {
            match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err("not any more".to_owned()),
            }
        });
    let said = stage.install(&[]).await.failed();
    assert!(said.contains("Deployment kdev-relay was refused"), "{said}");
    assert!(said.contains("not any more"), "{said}");
    assert!(said.contains("is taken back"), "{said}");
    assert_eq!(stage.all(), before);
}

#[tokio::test]
async fn what_may_not_be_taken_back_is_named() {
    let stage = Stage::new().await;
    let mut rules = kdev_sim::Rule::edit("shop");
    rules.retain(|rule| !format!("{rule:?}").contains("\"secrets\""));
    let read = ["get", "list", "watch"];
    let write = ["create", "patch", "delete"];
    for (verbs, resources) in [
        (
            &read[..],
            &["pods", "services", "configmaps", "secrets"][..],
        ),
        (&write[..], &["pods", "services", "configmaps"][..]),
        (&["create"][..], &["secrets"][..]),
    ] {
        rules.push(kdev_sim::Rule::new(verbs, resources).namespace("shop"));
    }
    stage
        .cluster
        .add_user(kdev_sim::User::new("careful").rules(rules));
    let stage = stage.acting("careful");
    refuse_real_pods(&stage);
    let said = stage.install(&[]).await.failed();
    assert!(
        said.contains("Secret kdev-relay stays in namespace shop: "),
        "{said}"
    );
    assert!(stage.object("deployments", "kdev-relay").is_none());
    assert!(stage.object("secrets", "kdev-relay").is_some());
}

#[tokio::test]
async fn a_change_that_fails_leaves_what_was_there_and_says_so() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    let there = stage.all();
    refuse_real_pods(&stage);
    let said = stage.install(&["--deny", "10.9.9.9"]).await.failed();
    assert!(
        said.contains("was there before and stays as it was changed"),
        "{said}"
    );
    assert!(
        said.contains("left in namespace shop: Deployment kdev-relay."),
        "{said}"
    );
    let serving = |all: &[(&str, String)]| {
        let pods = all.iter().filter(|(resource, _)| *resource == "pods");
        pods.cloned().map(|(_, name)| name).collect::<Vec<_>>()
    };
    assert_eq!(
        serving(&stage.all()),
        serving(&there),
        "the old pods serve on"
    );
}

#[tokio::test]
async fn a_pod_that_only_the_user_may_not_make_is_no_obstacle() {
    let stage = Stage::new().await;
    // What the ReplicaSet makes has no name to be generated here.
    stage
        .cluster
        .add_policy("controllers-only", &["pods"], |pod| {
            match pod["metadata"]["generateName"].is_string() {
                true => Err("pods are for controllers to make".to_owned()),
                false => Ok(()),
            }
        });
    let refused = stage.install(&[]).await.failed();
    assert!(
        refused.contains("a pod of Deployment kdev-relay"),
        "{refused}"
    );
    let done = stage.install(&["--force"]).await;
    assert!(done.err.contains("--force goes on"), "{done:?}");
    done.ok();
}

#[tokio::test]
async fn without_the_right_to_make_pods_the_objects_alone_are_tried() {
    let stage = Stage::new().await;
    let mut rules = kdev_sim::Rule::view("shop");
    let all = ["get", "list", "watch", "create", "patch", "delete"];
    let resources = [
        "configmaps",
        "secrets",
        "deployments",
        "poddisruptionbudgets",
    ];
    rules.push(kdev_sim::Rule::new(&all, &resources));
    stage
        .cluster
        .add_user(kdev_sim::User::new("installer").rules(rules));
    stage.acting("installer").install(&[]).await.ok();
}

#[tokio::test]
async fn the_cause_of_an_earlier_run_is_not_repeated() {
    let stage = Stage::new().await;
    refuse_real_pods(&stage);
    stage.install(&["--keep"]).await.failed();
    // By itself the ReplicaSet would try again in some seconds, then minutes.
    stage.cluster.remove_policy("later");
    let done = stage.install(&[]).await;
    assert!(!done.err.contains("no pods today"), "{done:?}");
    done.ok();

    // The same of pods that cannot start.
    stage.kdev(&["uninstall", "--yes"]).await.ok();
    let missing = "nowhere/busybox:1";
    stage.cluster.faults().missing_image(Some(missing));
    stage
        .install(&["--keep", "--base-image", missing])
        .await
        .failed();
    stage.cluster.faults().missing_image(None);
    let done = stage.install(&[]).await;
    assert!(!done.err.contains("cannot be pulled"), "{done:?}");
    done.ok();
}

#[tokio::test]
async fn a_cause_that_lasts_is_said_again() {
    let stage = Stage::new().await;
    refuse_real_pods(&stage);
    stage.install(&["--keep"]).await.failed();
    stage.cluster.remove_policy("later");
    stage.cluster.add_policy(
        "other",
        &["pods"],
        |pod| match pod["metadata"]["generateName"].is_string() {
            true => Ok(()),
            false => Err("another reason".to_owned()),
        },
    );
    let said = stage.install(&[]).await.failed();
    assert!(said.contains("another reason"), "{said}");
    assert!(!said.contains("no pods today"), "{said}");
}

#[tokio::test]
async fn broken_off_it_says_what_stays() {
    let stage = Stage::new().await;
    stage.cluster.faults().full_nodes(true);
    let relay = stage.folder.path().join("relay").display().to_string();
    let child = stage
        .command(&["install", "--relay-binary", &relay])
        .spawn()
        .unwrap();
    while stage.object("deployments", "kdev-relay").is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("it was broken off; left in namespace shop: Secret kdev-relay,"),
        "{said}"
    );
    assert!(said.contains("Deployment kdev-relay"), "{said}");
}
