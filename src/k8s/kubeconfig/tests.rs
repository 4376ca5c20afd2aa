use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A kubeconfig with one cluster, user and context of the same name.
fn one(name: &str, server: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster: {{server: '{server}'}}
users:
- name: {name}
  user: {{token: secret-of-{name}}}
contexts:
- name: {name}
  context: {{cluster: {name}, user: {name}, namespace: ns-of-{name}}}
{more}"
    )
}

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn environment(&self, list: &[&str]) -> Environment {
        let paths: Vec<PathBuf> = list.iter().map(|name| self.0.path().join(name)).collect();
        Environment {
            kubeconfig: (!list.is_empty()).then(|| std::env::join_paths(paths).unwrap()),
            home: Some(self.0.path().to_owned()),
            ..Environment::default()
        }
    }
}

fn context(name: &str) -> KubeOptions {
    KubeOptions {
        context: Some(name.to_owned()),
        ..KubeOptions::default()
    }
}

#[test]
fn the_first_file_of_a_list_wins_and_missing_ones_are_skipped() {
    let home = Home::new();
    home.write("a", &one("a", "https://a:1", "current-context: ''"));
    home.write("b", &one("b", "https://b:1", "current-context: b"));
    home.write("c", &one("b", "https://other:1", "current-context: a"));
    let environment = home.environment(&["missing", "a", "b", "c"]);
    let loaded = load(&KubeOptions::default(), &environment).unwrap();
    assert_eq!(loaded.context, "b", "the first current-context that is set");
    assert_eq!(loaded.server, "https://b:1/");
    assert_eq!(loaded.namespace, "ns-of-b");
    let loaded = load(&context("a"), &environment).unwrap();
    assert_eq!(loaded.server, "https://a:1/");
}

#[test]
fn flags_overrule_the_file() {
    let home = Home::new();
    let file = home.write("x", &one("x", "https://x:1", "current-context: x"));
    let options = KubeOptions {
        kubeconfig: Some(file),
        namespace: Some("mine".into()),
        as_user: Some("jane".into()),
        as_groups: vec!["devs".into(), "ops".into()],
        ..KubeOptions::default()
    };
    let loaded = load(&options, &home.environment(&["missing"])).unwrap();
    assert_eq!(loaded.namespace, "mine");
    assert_eq!(loaded.user, "x as jane");
    let auth = &loaded.config.auth_info;
    assert_eq!(auth.impersonate.as_deref(), Some("jane"));
    assert_eq!(auth.impersonate_groups.as_ref().unwrap().len(), 2);
}

#[test]
fn the_home_directory_comes_last_and_default_is_the_namespace() {
    let home = Home::new();
    let config = one("h", "https://h:1", "current-context: h").replace(", namespace: ns-of-h", "");
    home.write(".kube/config", &config);
    let loaded = load(&KubeOptions::default(), &home.environment(&[])).unwrap();
    assert_eq!((&*loaded.context, &*loaded.namespace), ("h", "default"));
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let home = Home::new();
    home.write("sub/token", "from-file\n");
    let config = one("x", "https://x:1", "current-context: x")
        .replace("token: secret-of-x", "tokenFile: token");
    let file = home.write("sub/config", &config);
    let loaded = load(&KubeOptions::default(), &home.environment(&["sub/config"])).unwrap();
    let expected = file.parent().unwrap().join("token");
    assert_eq!(
        loaded.config.auth_info.token_file.as_deref(),
        expected.to_str()
    );
}

#[test]
fn plugins_are_taken_out_of_kubes_hands() {
    let home = Home::new();
    let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login, interactiveMode: Never}";
    let config = one("x", "https://x:1", "current-context: x");
    home.write("x", &config.replace("token: secret-of-x", plugin));
    let loaded = load(&KubeOptions::default(), &home.environment(&["x"])).unwrap();
    assert!(loaded.config.auth_info.exec.is_none());
    let command = loaded.exec.unwrap().command.unwrap();
    assert!(
        command.starts_with(home.0.path().to_str().unwrap()),
        "{command}"
    );

    home.write(
        "y",
        &config.replace("{token: secret-of-x", &format!("{{token: t, {plugin}")),
    );
    let loaded = load(&KubeOptions::default(), &home.environment(&["y"])).unwrap();
    assert!(loaded.exec.is_none(), "a token in the file comes first");
}

#[test]
fn failures_say_where_and_what_to_do() {
    let home = Home::new();
    let fails = |options: &KubeOptions, list: &[&str]| {
        load(options, &home.environment(list))
            .unwrap_err()
            .to_string()
    };
    let plain = KubeOptions::default();

    let none = fails(&plain, &[]);
    assert!(
        none.contains(".kube/config") && none.contains("--kubeconfig"),
        "{none}"
    );

    let absent = KubeOptions {
        kubeconfig: Some(home.0.path().join("absent")),
        ..KubeOptions::default()
    };
    let absent = fails(&absent, &[]);
    assert!(absent.starts_with("cannot read"), "{absent}");

    home.write("broken", "apiVersion: v1\nclusters:\n- name: [\n");
    let broken = fails(&plain, &["broken"]);
    assert!(broken.contains("broken, line "), "{broken}");
    assert_eq!(broken.matches("line ").count(), 1, "{broken}");

    home.write("x", &one("x", "https://x:1", "current-context: x"));
    let unknown = fails(&context("y"), &["x"]);
    assert_eq!(unknown, "no context \"y\" in the kubeconfig: there is x");

    home.write("z", &one("z", "https://z:1", ""));
    let unset = fails(&plain, &["z"]);
    assert!(unset.contains("--context NAME (there is z)"), "{unset}");

    let ca = one("x", "https://x:1", "current-context: x")
        .replace("server:", "certificate-authority: no-such.crt, server:");
    home.write("ca", &ca);
    let missing = fails(&plain, &["ca"]);
    assert!(
        missing.contains("certificate authority") && missing.contains("no-such.crt"),
        "{missing}"
    );

    let dangling = one("x", "https://x:1", "current-context: x").replace("user: x", "user: gone");
    home.write("dangling", &dangling);
    let dangling = fails(&plain, &["dangling"]);
    assert!(dangling.contains("names the user \"gone\""), "{dangling}");
}

#[test]
fn a_server_without_a_scheme_is_plain_http() {
    let home = Home::new();
    home.write("x", &one("x", "localhost:8080", "current-context: x"));
    let loaded = load(&KubeOptions::default(), &home.environment(&["x"])).unwrap();
    assert_eq!(loaded.server, "http://localhost:8080/");
}
