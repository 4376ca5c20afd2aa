//! `--dry-run` prints exactly what would be applied, and changes nothing.

use serde_json::{Value, json};

use crate::support::{Stage, VERSION, golden};

/// Hides what is random or depends on the compression's version.
fn masked(text: &str) -> String {
    let mut hidden = String::new();
    for line in text.lines() {
        let key = line.trim_start().split(':').next().unwrap_or_default();
        let value = line.split_once(": ").map_or("", |(_, value)| value);
        let line = match key {
            "part" => line.replace(value, "PROGRAM"),
            _ => line.replace(VERSION, "VERSION"),
        };
        hidden += &hash_masked(&line);
        hidden.push('\n');
    }
    hidden
}

/// Ten hexadecimal digits behind the architecture, and a sum of 64.
fn hash_masked(line: &str) -> String {
    let mut line = line.to_owned();
    if let Some(at) = line.find("kdev-relay-amd64-") {
        let from = at + "kdev-relay-amd64-".len();
        line.replace_range(from..from + 10, "HASH");
    }
    if let Some(at) = line.find("sum=").filter(|at| line.len() >= at + 68) {
        line.replace_range(at + 4..at + 68, "SUM");
    }
    line
}

#[tokio::test]
async fn the_manifest_is_the_known_one() {
    let stage = Stage::new().await;
    let before = stage.all();
    let printed = stage.install(&["--dry-run", "-o", "yaml"]).await.ok();
    assert_eq!(stage.all(), before);
    let printed = masked(&printed);
    let file = golden("install.yaml");
    if std::env::var_os("KDEV_RECORD").is_some() {
        std::fs::write(&file, &printed).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap();
    assert_eq!(printed, known, "KDEV_RECORD=1 writes it anew");
}

#[tokio::test]
async fn what_is_printed_is_what_is_applied() {
    let stage = Stage::new().await;
    stage.install(&[]).await.ok();
    // With the secrets that are there now, each object is as the cluster has it.
    let masked = stage.install(&["--dry-run", "-o", "json"]).await.json();
    let flags = ["--dry-run", "--show-keys", "-o", "json"];
    let list = stage.install(&flags).await.json();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 6);
    for (shown, masked) in items.iter().zip(masked["items"].as_array().unwrap()) {
        if shown["kind"] == "Secret" {
            // Nor would an API server take it for a key.
            assert_eq!(masked["data"]["key"], "(masked; --show-keys prints it)");
            assert_eq!(masked["metadata"], shown["metadata"]);
        } else {
            assert_eq!(masked, shown);
        }
    }
    for item in items {
        let resource = match item["kind"].as_str().unwrap() {
            "Secret" => "secrets",
            "ConfigMap" => "configmaps",
            "Deployment" => "deployments",
            "PodDisruptionBudget" => "poddisruptionbudgets",
            other => panic!("{other}"),
        };
        let name = item["metadata"]["name"].as_str().unwrap();
        let there = stage.object(resource, name).unwrap();
        for field in ["spec", "data", "binaryData", "immutable"] {
            assert_eq!(item[field], there[field], "{resource} {name} {field}");
        }
        for field in ["labels", "annotations"] {
            assert_eq!(
                item["metadata"][field], there["metadata"][field],
                "{resource} {name}"
            );
        }
    }
    let yaml = stage.install(&["--dry-run", "--show-keys"]).await.ok();
    let documents = yaml.split("\n---\n").map(serde_saphyr::from_str);
    let documents: Vec<Value> = documents.collect::<Result<_, _>>().unwrap();
    assert_eq!(documents, *items, "both forms say the same");

    let restricted = &items[5]["spec"]["template"]["spec"];
    assert_eq!(restricted["automountServiceAccountToken"], false);
    assert_eq!(restricted["securityContext"]["runAsNonRoot"], true);
    for kind in ["containers", "initContainers"] {
        let security: &Value = &restricted[kind][0]["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(security["readOnlyRootFilesystem"], true);
    }
}
