//! What `cluster/` has for administrators, against what the program itself is and makes.
#![allow(clippy::unwrap_used, missing_docs)]

use kdev::k8s::install::limits::resources;
use kdev::k8s::install::manifest::Manifest;
use kdev::k8s::install::settings::{Settings, Source};
use kdev::k8s::install::shape::{self, Shape};
use kdev::k8s::install::site::BUDGETS;
use serde_json::Value;

fn read(path: &str) -> Value {
    let path = format!("{}/cluster/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// What `kdev install --image` makes.
fn manifest() -> Manifest {
    Manifest {
        namespace: "team".to_owned(),
        settings: Settings {
            source: Source::Image("kdev-relay".to_owned()),
            ..Settings::default()
        },
        binaries: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        assigns_user: false,
        resources: resources(&[], &[], &Shape::default()).value,
        budgets: &BUDGETS,
        keys: Default::default(),
    }
}

#[test]
fn all_of_it_is_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("chart/Chart.yaml");
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
    let kustomization = read("manifests/kustomization.yaml");
    assert_eq!(kustomization["images"][0]["newTag"], version);
    let deployment = read("manifests/deployment.yaml");
    for metadata in [
        &deployment["metadata"],
        &deployment["spec"]["template"]["metadata"],
    ] {
        assert_eq!(metadata["annotations"]["kdev.dev/version"], version);
    }
}

/// Ports and paths that the relay's own code decides.
#[test]
fn the_relay_is_told_nothing_it_does_not_do() {
    let deployment = read("manifests/deployment.yaml");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let settings = kdev::relay::Settings::read(|_| None).unwrap();
    assert_eq!(
        container["ports"][0]["containerPort"],
        settings.tunnel.port()
    );
    let http = settings.http.unwrap().port();
    assert_eq!(container["ports"][1]["containerPort"], http);
    assert_eq!(container["readinessProbe"]["httpGet"]["port"], http);
    for (mount, role) in container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["forward", "intercept"])
    {
        let path = settings.secrets.join(role);
        assert_eq!(mount["mountPath"], path.to_str().unwrap());
    }
}

/// `kdev install --image` makes the same objects.
#[test]
fn they_are_what_install_would_make() {
    let installed = manifest();
    let made = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        // A manifest is for any namespace.
        assert_eq!(metadata.remove("namespace").unwrap(), "team");
        object
    };
    let pairs = [
        ("deployment", installed.deployment()),
        ("poddisruptionbudget", installed.budget().unwrap()),
        ("ports", installed.ports()),
    ];
    for (file, object) in pairs {
        let manifest = read(&format!("manifests/{file}.yaml"));
        assert_eq!(manifest, made(object), "{file}");
    }
    for name in ["kdev-relay", "kdev-relay-intercept"] {
        let secret = installed.secret(name).unwrap();
        assert_eq!(secret["type"], "Opaque");
        assert_eq!(secret["data"].as_object().unwrap().len(), 1);
    }
}

/// Whoever intercepts by the roles of the manifests changes Services and the record of ports, and
/// nothing that pods are made of: those can mount every Secret.
#[test]
fn no_role_can_change_what_runs() {
    for file in ["use", "intercept"] {
        let role = read(&format!("rbac/{file}.yaml"));
        for rule in role["rules"].as_array().unwrap() {
            let of = |field: &str| -> Vec<String> {
                let texts = rule[field].as_array().into_iter().flatten();
                texts
                    .map(|text| text.as_str().unwrap().to_owned())
                    .collect()
            };
            let writes = ["create", "update", "patch", "delete", "*"];
            let writes = of("verbs")
                .iter()
                .any(|verb| writes.contains(&verb.as_str()));
            for resource in of("resources") {
                let may = match resource.as_str() {
                    "services" | "pods/portforward" | "pods/eviction" => true,
                    "configmaps" => of("resourceNames") == ["kdev-relay-ports"],
                    _ => !writes,
                };
                assert!(may, "{file}: {rule}");
            }
        }
    }
}

/// Each value of the chart is one that the schema knows, and one that a template reads.
#[test]
fn the_charts_values_are_known_and_used() {
    let values = read("chart/values.yaml");
    let values: Vec<&String> = values.as_object().unwrap().keys().collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/chart");
    let schema = std::fs::read_to_string(format!("{folder}/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let known = schema["properties"].as_object().unwrap();
    let known: Vec<&String> = known.keys().filter(|key| *key != "global").collect();
    assert_eq!(known.len(), values.len(), "{known:?} {values:?}");
    let templates = std::fs::read_dir(format!("{folder}/templates")).unwrap();
    let templates: String = templates
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for value in values {
        assert!(known.contains(&value), "{value}");
        assert!(templates.contains(&format!(".Values.{value}")), "{value}");
    }
}

/// What can be chosen at the install has a place in the chart, under the name of the pod's field.
#[test]
fn what_install_can_place_the_chart_can() {
    let chosen = |text: &str| vec![text.to_owned()];
    let pairs = |text: &str| shape::labels(&chosen(text)).unwrap();
    let asked = shape::Asked {
        labels: Some(pairs("team=a")),
        annotations: Some(pairs("note=b")),
        node_selector: Some(pairs("disk=ssd")),
        tolerations: Some(shape::tolerations(&chosen("spot")).unwrap()),
        priority_class: Some("low".to_owned()),
        runtime_class: Some("gvisor".to_owned()),
        pull_secrets: Some(chosen("regcred")),
        ..shape::Asked::default()
    };
    let mut manifest = manifest();
    let plain = manifest.deployment();
    asked.over(&mut manifest.settings.shape);
    let shaped = manifest.deployment();
    let pod = |deployment: &Value| {
        let pod = deployment["spec"]["template"]["spec"].as_object().unwrap();
        pod.keys().cloned().collect::<Vec<String>>()
    };
    let before = pod(&plain);
    let more: Vec<String> = pod(&shaped)
        .into_iter()
        .filter(|field| !before.contains(field))
        .collect();
    assert_eq!(more.len(), 5);
    let values = read("chart/values.yaml");
    for field in more {
        assert!(values.get(&field).is_some(), "{field}");
    }
    for (field, value) in [
        ("labels", "commonLabels"),
        ("annotations", "commonAnnotations"),
    ] {
        assert!(values.get(value).is_some(), "{value}");
        let secret = manifest.secret("kdev-relay").unwrap();
        let budget = manifest.budget().unwrap();
        for object in [&shaped, &shaped["spec"]["template"], &secret, &budget] {
            let marks = object["metadata"][field].as_object().unwrap();
            assert!(
                marks.contains_key("team") || marks.contains_key("note"),
                "{object}"
            );
        }
    }
}
