//! Projects that are shaped as public ones are: what becomes of them, by what Compose prints.

use std::process::Command;

use serde_json::{Value, json};

use crate::joined::Laptop;
use crate::program::finish;

/// Where the projects lie that are shaped as public ones are. Their first lines say what becomes of them.
const PROJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/projects");

/// What a project's file says after `# WORD:` in its first lines.
fn foretold<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let begin = format!("# {word}: ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap_or_default().split_whitespace().collect()
}

#[test]
#[ignore = "needs the lab"]
fn projects_of_all_shapes_are_converted_or_refused_and_never_changed() {
    let laptop = Laptop::new();
    let mut files: Vec<_> = std::fs::read_dir(PROJECTS)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    files.retain(|file| file.path().extension().is_some_and(|kind| kind == "yaml"));
    files.sort_by_key(std::fs::DirEntry::file_name);
    assert_eq!(files.len(), 25);
    let status = || {
        let args = ["-C", PROJECTS, "status", "--porcelain", "--ignored", "."];
        finish(Command::new("git").args(args), b"").ok()
    };
    let before = status();
    for file in files {
        let name = file.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let args = [
            "docker", "compose", "-f", &name, "config", "--format", "json",
        ];
        let mut kdev = laptop.run_of(&[]);
        let done = finish(kdev.args(args).current_dir(PROJECTS), b"");
        let why = foretold(&text, "refused").join(" ");
        if !why.is_empty() {
            assert!(
                done.code == 125 && done.err.contains(&why),
                "{name}: {done:?}"
            );
            continue;
        }
        assert_eq!(done.code, 0, "{name}: {done:?}");
        for service in foretold(&text, "outside") {
            let said = format!("service {service} stays outside the cluster: ");
            assert!(done.err.contains(&said), "{name}: {done:?}");
        }
        let with: Value = serde_json::from_str(&done.out).unwrap();
        let plain = finish(
            Command::new(args[0]).args(&args[1..]).current_dir(PROJECTS),
            b"",
        )
        .ok();
        let plain: Value = serde_json::from_str(&plain).unwrap();
        let mut sees = foretold(&text, "sees");
        sees.sort_unstable();
        assert_eq!(compared(&name, &plain, &with), sees, "{name}");
    }
    assert_eq!(status(), before);
}

/// The services of `with` that see the cluster, after all is found to be there as in `plain`.
fn compared<'a>(file: &str, plain: &'a Value, with: &Value) -> Vec<&'a str> {
    for key in [
        "name", "networks", "volumes", "secrets", "configs", "x-kdev",
    ] {
        assert_eq!(plain[key], with[key], "{file}: {key}");
    }
    let mut sees = Vec::new();
    for (name, before) in plain["services"].as_object().unwrap() {
        let after = &with["services"][name];
        let owner = &with["services"][format!("kdev-{name}")];
        let mode = after["network_mode"].as_str().unwrap_or_default();
        if mode.starts_with("service:kdev-") {
            sees.push(&**name);
        }
        for (key, value) in before.as_object().unwrap() {
            let context = format!("{file}: {name}.{key}");
            let (kept, moved) = (&after[key], &owner[key]);
            match &**key {
                // There is more there, and all that was.
                "depends_on" | "labels" => {
                    for (key, value) in value.as_object().unwrap() {
                        assert_eq!(&kept[key], value, "{context}");
                    }
                }
                "networks" if owner.is_object() => {
                    for (network, value) in value.as_object().unwrap() {
                        let has_it = |alias: &Value| {
                            moved[network]["aliases"]
                                .as_array()
                                .unwrap()
                                .contains(alias)
                        };
                        for (key, value) in value.as_object().into_iter().flatten() {
                            match value.as_array().filter(|_| key == "aliases") {
                                Some(aliases) => assert!(aliases.iter().all(has_it), "{context}"),
                                None => assert_eq!(&moved[network][key], value, "{context}"),
                            }
                        }
                        assert!(has_it(&json!(name)), "{context}");
                    }
                }
                "sysctls" if owner.is_object() => {
                    for (key, value) in value.as_object().unwrap() {
                        let to = if key.starts_with("net.") { moved } else { kept };
                        assert_eq!(&to[key], value, "{context}");
                    }
                }
                "dns" if owner.is_object() => assert_eq!(moved[0], "127.77.0.53", "{context}"),
                "extra_hosts" if owner.is_object() => {
                    let hosts = moved.as_array().unwrap();
                    assert!(
                        value
                            .as_array()
                            .unwrap()
                            .iter()
                            .all(|host| hosts.contains(host)),
                        "{context}"
                    );
                }
                "links" if owner.is_object() => {
                    let all = value.as_array().unwrap();
                    assert_eq!(moved.as_array().unwrap().len(), all.len(), "{context}");
                }
                "network_mode" if mode.starts_with("service:kdev-") => {}
                "ports" | "expose" | "hostname" | "domainname" | "mac_address" | "dns_opt"
                | "dns_search" | "external_links"
                    if owner.is_object() =>
                {
                    assert_eq!(moved, value, "{context}");
                    assert!(kept.is_null(), "{context}");
                }
                _ => assert_eq!(kept, value, "{context}"),
            }
        }
    }
    sees
}
