//! The init container's script, run by this machine's own shell.

use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::{Stage, VERSION, program};

/// The script and its parts, as the node would mount them, below a folder.
struct Node {
    root: tempfile::TempDir,
    script: String,
}

impl Node {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let arm = stage
            .file("arm", &program("arm64", VERSION))
            .display()
            .to_string();
        let args = ["--relay-binary", &arm, "--dry-run", "-o", "json"];
        let list = stage.install(&args).await.json();
        let items = list["items"].as_array().unwrap();
        let root = tempfile::tempdir().unwrap();
        let deployment = items
            .iter()
            .find(|item| item["kind"] == "Deployment")
            .unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        let parts = volumes
            .iter()
            .find(|volume| volume["name"] == "parts")
            .unwrap();
        for source in parts["projected"]["sources"].as_array().unwrap() {
            let source = &source["configMap"];
            let map = items
                .iter()
                .find(|item| item["metadata"]["name"] == source["name"]);
            let part = map.unwrap()["binaryData"]["part"].as_str().unwrap();
            let path = root
                .path()
                .join("parts")
                .join(text(&source["items"][0]["path"]));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, STANDARD.decode(part).unwrap()).unwrap();
        }
        std::fs::create_dir(root.path().join("kdev")).unwrap();
        std::fs::create_dir(root.path().join("bin")).unwrap();
        let place = root.path().display();
        let script = text(&pod["initContainers"][0]["command"][2])
            .replace("/parts/", &format!("{place}/parts/"))
            .replace("/kdev/", &format!("{place}/kdev/"));
        Self { root, script }
    }

    /// Runs it as on a machine that calls itself so.
    fn run(&self, machine: &str) -> Output {
        let uname = self.root.path().join("bin/uname");
        std::fs::write(&uname, format!("#!/bin/sh\necho {machine}\n")).unwrap();
        executable(&uname);
        let path = std::env::var("PATH").unwrap();
        let bin = self.root.path().join("bin");
        Command::new("sh")
            .args(["-c", &self.script])
            .env("PATH", format!("{}:{path}", bin.display()))
            .output()
            .unwrap()
    }

    fn result(&self) -> Option<Vec<u8>> {
        std::fs::read(self.root.path().join("kdev/kdev-relay")).ok()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_parts_for_the_machine_are_joined() {
    let node = Node::new().await;
    for (machine, arch) in [("x86_64", "amd64"), ("aarch64", "arm64")] {
        // Again over what is there, as after a restart of the node.
        for _ in 0..2 {
            let output = node.run(machine);
            assert!(output.status.success(), "{}", said(&output));
            assert_eq!(node.result().unwrap(), program(arch, VERSION));
        }
    }
}

#[tokio::test]
async fn a_machine_without_parts_is_named() {
    let node = Node::new().await;
    let output = node.run("mips");
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("this node is mips and the relay was installed for amd64, arm64"),
        "{said}"
    );
    assert!(said.contains("--relay-binary"), "{said}");
    assert_eq!(node.result(), None);
}

#[tokio::test]
async fn parts_that_are_not_whole_are_refused() {
    let node = Node::new().await;
    let part = node.root.path().join("parts/amd64/00");
    let whole = std::fs::read(&part).unwrap();
    std::fs::write(&part, &whole[..whole.len() - 9]).unwrap();
    let output = node.run("x86_64");
    assert!(
        said(&output).contains("cannot be joined"),
        "{}",
        said(&output)
    );
    // Another program, sound in itself.
    let other = node.root.path().join("parts/arm64/00");
    std::fs::copy(&other, &part).unwrap();
    let output = node.run("x86_64");
    assert!(said(&output).contains("wrong sum"), "{}", said(&output));
    assert_eq!(node.result(), None);
}
