use serde_json::json;

use crate::support::{Home, text};

const SHOW: [&str; 3] = ["config", "show", "--json"];

#[test]
fn the_nearer_word_wins_and_is_named() {
    let home = Home::new();
    let namespace = |command: &mut std::process::Command| home.shown(command, "namespace");
    let shown = namespace(&mut home.kdev(&SHOW));
    assert_eq!(
        (&shown["value"], &shown["layer"]),
        (&json!(null), &json!("default"))
    );

    let user = home.write("config/kdev/config.toml", "\nnamespace = \"user\"\n");
    let shown = namespace(&mut home.kdev(&SHOW));
    assert_eq!(shown["value"], "user");
    assert_eq!(shown["where"], format!("{}:2", user.display()));

    let project = home.write(
        "project/.kdev.toml",
        "# ours\nvia = \"direct\"\nnamespace = \"ours\"",
    );
    let shown = namespace(&mut home.kdev(&SHOW));
    assert_eq!(shown["value"], "ours");
    assert_eq!(shown["where"], format!("{}:3", project.display()));
    assert_eq!(home.shown(&mut home.kdev(&SHOW), "via")["value"], "direct");

    let shown = namespace(home.kdev(&SHOW).env("KDEV_NAMESPACE", "variable"));
    assert_eq!(
        (&shown["value"], &shown["where"]),
        (&json!("variable"), &json!("$KDEV_NAMESPACE"))
    );

    let args = [&SHOW[..], &["-n", "flag"]].concat();
    let shown = namespace(home.kdev(&args).env("KDEV_NAMESPACE", "variable"));
    assert_eq!(
        (&shown["value"], &shown["where"]),
        (&json!("flag"), &json!("--namespace"))
    );
    let overridden: Vec<&str> = shown["overridden"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["value"].as_str().unwrap())
        .collect();
    assert_eq!(overridden, ["variable", "ours", "user"]);
    // An empty variable says nothing.
    let shown = namespace(home.kdev(&SHOW).env("KDEV_NAMESPACE", ""));
    assert_eq!(shown["value"], "ours");
}

#[test]
fn the_project_ends_at_the_repository_and_at_home() {
    let home = Home::new();
    let context = || home.shown(&mut home.kdev(&SHOW), "context")["value"].clone();
    home.write(".kdev.toml", "context = \"home\"");
    assert_eq!(context(), json!(null));
    home.write("project/.kdev.toml", "context = \"outer\"");
    assert_eq!(context(), "outer");
    std::fs::create_dir(home.path("project/deep/.git")).unwrap();
    assert_eq!(context(), json!(null));
    home.write("project/deep/.kdev.toml", "context = \"root\"");
    assert_eq!(context(), "root");
    home.write("project/deep/er/.kdev.toml", "context = \"nearest\"");
    assert_eq!(context(), "nearest");
    let mut without = home.kdev(&SHOW);
    assert_eq!(
        home.shown(without.env("KDEV_PROJECT", "off"), "context")["value"],
        json!(null)
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (content, place, message) in [
        ("contxt = \"x\"", "1:1", "did you mean \"context\"?"),
        (
            "\n\nproxyListen = 1",
            "3:1",
            "did you mean \"proxy-listen\"?",
        ),
        (
            "zebra = 1",
            "1:1",
            "unknown key \"zebra\"; `kdev config show`",
        ),
        (
            "namespace = 5",
            "1:13",
            "expected a string, found a whole number",
        ),
        (
            "via = \"pigeon\"",
            "1:7",
            "\"pigeon\" is none of \"auto\", \"direct\"",
        ),
        ("# é\nnamespace = \"\"", "2:13", "it is empty"),
        (
            "namespace = \"kube-system/services/kube-dns?x=\"",
            "1:13",
            "is not a namespace",
        ),
        ("proxy-listen = \"0.0.0.0:80\"", "1:16", "loopback"),
        ("proxy-listen = 70000", "1:16", "neither a port"),
        ("context = \"x", "1:13", "invalid basic string"),
        ("a = 1\na = 2", "2:1", "duplicate key"),
        ("kubeconfig = \"k\"", "1:1", "may not say \"kubeconfig\""),
        (
            "host-loopback = true",
            "1:1",
            "may not say \"host-loopback\"",
        ),
        ("as = \"root\"", "1:1", "may not say \"as\""),
        ("label = [\"team\"]", "1:9", "is no label KEY=VALUE"),
        ("memory-limit = \"much\"", "1:16", "is no quantity"),
        (
            "toleration = [\"a:Never\"]",
            "1:14",
            "none of NoSchedule, PreferNoSchedule, NoExecute",
        ),
    ] {
        let home = Home::new();
        let file = home.write("project/.kdev.toml", content);
        let output = home.output(&["config", "check"]);
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{content}: {shown}");
        let start = format!("{}:", file.display());
        assert!(shown.starts_with(&start), "{content}: {shown}");
        assert!(shown.contains(message), "{content}: {shown}");
        let start = format!("{start}{place}: ");
        assert!(shown.starts_with(&start), "{content}: {shown}");
        // And it stops what would have used it.
        for (args, code) in [
            (&["status"][..], 1),
            (&["run", "--", "true"], 125),
            (&["config", "show"], 1),
        ] {
            let output = home.output(args);
            let shown = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{args:?}: {shown}");
            assert!(shown.contains(&start), "{args:?}: {shown}");
        }
    }
}

#[test]
fn all_errors_of_a_file_are_listed_and_each_once() {
    let home = Home::new();
    home.write(
        "project/.kdev.toml",
        "namespac = 1\nvia = 2\ncontext = \"good\"\n",
    );
    let output = home.output(&["config", "check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = document["problems"].as_array().unwrap();
    let lines: Vec<u64> = problems
        .iter()
        .map(|p| p["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [1, 2]);
    let shown = text(&home.output(&["status"]).stderr);
    assert!(
        shown.contains("has 2 errors") && shown.contains(".kdev.toml:1:1"),
        "{shown}"
    );
}

#[test]
fn a_file_of_the_users_own_may_say_more_and_paths_belong_to_it() {
    let home = Home::new();
    let kubeconfig = |command: &mut std::process::Command| home.shown(command, "kubeconfig");
    home.write(
        "config/kdev/config.toml",
        "kubeconfig = \"clusters/lab\"\nhost-loopback = true\nas-group = [\"a\", \"b\"]",
    );
    let shown = kubeconfig(&mut home.kdev(&SHOW));
    assert_eq!(
        shown["value"],
        home.path("config/kdev/clusters/lab").to_str().unwrap()
    );
    home.write("config/kdev/config.toml", "kubeconfig = \"~/lab\"");
    let shown = kubeconfig(&mut home.kdev(&SHOW));
    assert_eq!(shown["value"], home.path("lab").to_str().unwrap());
    let file = home.path("config/kdev/config.toml");
    let file = file.to_str().unwrap();
    assert_eq!(
        home.output(&["config", "check", file]).status.code(),
        Some(0)
    );
    // The command that takes it over finds it.
    let output = home.output(&["run", "--", "true"]);
    assert!(
        text(&output.stderr).contains("/lab"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn wrong_variables_and_files_that_are_none_are_said() {
    let home = Home::new();
    let output = home
        .kdev(&["status"])
        .env("KDEV_VIA", "pigeon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("$KDEV_VIA"),
        "{}",
        text(&output.stderr)
    );
    std::fs::create_dir(home.path("project/.kdev.toml")).unwrap();
    let output = home.output(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("it is no file"),
        "{}",
        text(&output.stderr)
    );
    std::fs::remove_dir(home.path("project/.kdev.toml")).unwrap();
    home.write("project/.kdev.toml", &"#".repeat(300 << 10));
    let output = home.output(&["status"]);
    assert!(
        text(&output.stderr).contains("larger than"),
        "{}",
        text(&output.stderr)
    );
    let output = home.output(&["config", "check", "no-such-file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does not exist"));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let home = Home::new();
    let file = home.write("project/.kdev.toml", "context = \"theirs\"");
    if !nix::unistd::getuid().is_root() {
        println!("skipped: only root can give a file away");
        return;
    }
    // Root itself may read anybody's, so somebody else has to look.
    let stranger = |uid: u32| Some(nix::unistd::Uid::from_raw(uid));
    nix::unistd::chown(&file, stranger(4242), None).unwrap();
    let output = {
        use std::os::unix::process::CommandExt as _;
        let mut command = home.kdev(&["status"]);
        for folder in ["", "project", "project/deep", "project/deep/er"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(home.path(folder), mode).unwrap();
        }
        // The program stands where only root may look.
        let copy = home.path("kdev");
        std::fs::copy(env!("CARGO_BIN_EXE_kdev"), &copy).unwrap();
        let mut other = home.program(&copy, &["status"]);
        std::mem::swap(&mut command, &mut other);
        command.uid(4343).output().unwrap()
    };
    let shown = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("uid 4242") && shown.contains("KDEV_PROJECT=off"),
        "{shown}"
    );
}

#[test]
fn the_committed_schema_is_current() {
    let home = Home::new();
    let output = home.output(&["config", "schema"]);
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/kdev.schema.json");
    let committed = std::fs::read_to_string(committed).unwrap_or_default();
    assert!(
        text(&output.stdout) == committed,
        "run `cargo run -- config schema > kdev.schema.json`"
    );
    // It knows what a project may say and nothing else.
    let schema: serde_json::Value = serde_json::from_str(&committed).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert!(properties.contains_key("context") && !properties.contains_key("kubeconfig"));
    assert_eq!(schema["additionalProperties"], false);
}

/// It stands in paths to the API server, so it is looked at wherever it comes from.
#[test]
fn a_namespace_is_a_label_wherever_it_comes_from() {
    let home = Home::new();
    let wrong = "kube-system/services/kube-dns?x=";
    let refused = |output: std::process::Output, code: i32| {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains(wrong) && said.contains("is not a namespace"),
            "{said}"
        );
    };
    let config = |namespace: &str| {
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "current-context": "x",
        });
        home.write("kubeconfig", &text.to_string())
    };
    let file = config("shop");
    let resolve = || {
        let mut command = home.kdev(&["resolve", "web"]);
        command.env("KUBECONFIG", &file);
        command
    };
    refused(resolve().args(["-n", wrong]).output().unwrap(), 2);
    refused(resolve().env("KDEV_NAMESPACE", wrong).output().unwrap(), 1);
    let project = home.write("project/.kdev.toml", &format!("namespace = {wrong:?}"));
    refused(resolve().output().unwrap(), 1);
    std::fs::remove_file(project).unwrap();
    config(wrong);
    refused(resolve().output().unwrap(), 1);
}

/// A stranger's repository may have more names go into the cluster, but not without a word.
#[test]
fn run_says_what_a_project_widens() {
    let home = Home::new();
    let project = home.write(
        "project/.kdev.toml",
        "namespace = \"shop\"\nalso-proxy = [\".corp.example\", \"10.0.0.0/8\"]\nresolve-in-cluster = [\"a.example\"]",
    );
    let run = ["run", "--own-session", "--", "true"];
    let said = |command: &mut std::process::Command| text(&command.output().unwrap().stderr);
    let told = said(&mut home.kdev(&run));
    let expected = format!(
        "kdev: {} sends more into the cluster: also-proxy=.corp.example,10.0.0.0/8 \
         resolve-in-cluster=a.example (KDEV_PROJECT=off ignores that file)\n",
        project.display()
    );
    assert!(told.starts_with(&expected), "{told}");
    // Neither what is one's own word, nor where nothing is widened.
    let told = said(home.kdev(&run).env("KDEV_PROJECT", "off"));
    assert!(!told.contains("more goes"), "{told}");
    home.write(
        "project/.kdev.toml",
        "namespace = \"shop\"\nalso-proxy = [\".corp.example\"]",
    );
    let told = said(home.kdev(&run).env("KDEV_ALSO_PROXY", ".mine.example"));
    assert!(!told.contains("more goes"), "{told}");
}

/// Whoever has the runtime folder answers in the place of one's own sessions.
#[test]
fn a_runtime_folder_of_somebody_else_is_an_error_with_its_fix() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let folder = home.path("runtime").join("kdev");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    let run = ["run", "--own-session", "--", "true"];
    let fix = format!("fix: run `chmod 700 {}`", folder.display());
    for (args, code) in [(&["status"][..], 1), (&run, 125)] {
        let output = home.output(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(&fix), "{args:?}: {said}");
    }
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    assert!(home.output(&["status"]).status.success());
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: other-user: only root can give a folder to another user");
        return;
    }
    std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
    let said = text(&home.output(&run).stderr);
    assert!(
        said.contains("belongs to another user (uid 65534)"),
        "{said}"
    );
    assert!(said.contains("fix: set XDG_RUNTIME_DIR"), "{said}");
}

/// What a repository's file says is shown, and does nothing to the terminal that shows it.
#[test]
fn a_projects_file_does_nothing_to_the_terminal() {
    let home = Home::new();
    let harmless = |output: std::process::Output| {
        let all = text(&output.stdout) + &text(&output.stderr);
        let harm =
            |c: char| (c.is_control() && c != '\n') || ('\u{200b}'..='\u{202e}').contains(&c);
        assert!(!all.chars().any(harm), "{all:?}");
        all
    };
    for content in [
        r#"namespace = "\u001b[2J""#,
        r#"context = "\u001b]0;owned\u0007\u202e\nkdev: all is well""#,
        r#""\u009b2J\r" = 1"#,
        r#"also-proxy = ["\u001b[1mx"]"#,
    ] {
        home.write("project/.kdev.toml", content);
        for args in [
            &["config", "check"][..],
            &["config", "show"],
            &["config", "show", "--json"],
            &["run", "--own-session", "--", "true"],
        ] {
            harmless(home.output(args));
        }
    }
    // Nor what stands on the command line.
    home.write("project/.kdev.toml", "");
    let all = harmless(home.output(&["forward", "\u{1b}[2J\u{202e}"]));
    assert!(all.contains(r"\u{1b}[2J"), "{all}");
}
