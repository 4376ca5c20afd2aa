//! What `cluster/` has for administrators, against what the program itself is and makes.
#![allow(clippy::unwrap_used, missing_docs)]

use kdev::k8s::install::limits::resources;
use kdev::k8s::install::manifest::Manifest;
use kdev::k8s::install::settings::{Settings, Source};
use kdev::k8s::install::shape::Shape;
use kdev::k8s::install::site::BUDGETS;
use serde_json::Value;

fn read(path: &str) -> Value {
    let path = format!("{}/cluster/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    serde_saphyr::from_str(&text).unwrap()
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
    let installed = Manifest {
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
    };
    let made = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        // A manifest is for any namespace.
        assert_eq!(metadata.remove("namespace").unwrap(), "team");
        object
    };
    let pairs = [
        ("deployment", installed.deployment()),
        ("poddisruptionbudget", installed.budget().unwrap()),
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
