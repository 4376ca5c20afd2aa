use std::path::Path;

use crate::share::{Stage, ended};
use crate::support::{Home, text};

/// What bash completes at the end of `line`, where readline would replace `part`.
async fn bash(stage: &Stage, line: &str, part: &str) -> Vec<String> {
    let script = r#"source <(kdev completions bash)
        COMP_LINE=$1 COMP_POINT=${#1}
        _kdev kdev "$2" ""
        printf '%s\n' "${COMPREPLY[@]}""#;
    let args = ["-c", script, "bash", line, part];
    let mut command = stage.home.program(Path::new("bash"), &args);
    let folder = Path::new(env!("CARGO_BIN_EXE_kdev")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("KUBECONFIG", stage.home.path("dev"));
    let mut command = tokio::process::Command::from(command);
    let (code, shown, said) = ended(command.kill_on_drop(true)).await;
    assert_eq!((code, said.as_str()), (0, ""), "{line}");
    let lines = shown.lines().filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// As [`bash`], where there is something to complete: on a busy machine the second that kdev takes
/// for it may be over too soon.
async fn some(stage: &Stage, line: &str, part: &str) -> Vec<String> {
    const ATTEMPTS: usize = 20;
    for _ in 0..ATTEMPTS {
        let found = bash(stage, line, part).await;
        if !found.is_empty() {
            return found;
        }
    }
    panic!("nothing completes {line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_from_the_cluster_as_it_is() {
    let stage = Stage::set_up().await;
    let has = |found: &[String], wanted: &str| found.iter().any(|f| f == wanted);

    let found = some(&stage, "kdev forward we", "we").await;
    assert_eq!(found, ["web:80"]);
    // Bash cut the word at the colon, and replaces what is behind it.
    let found = some(&stage, "kdev forward web:", "").await;
    assert!(has(&found, "80") && has(&found, "http"), "{found:?}");
    assert!(!has(&found, "6379"), "{found:?}");
    let found = some(&stage, "kdev forward web:h", "h").await;
    assert_eq!(found, ["http"]);
    let found = some(&stage, "kdev forward svc/we", "svc/we").await;
    assert_eq!(found, ["svc/web:80"]);
    let found = some(&stage, "kdev forward redis.sh", "redis.sh").await;
    assert_eq!(found, ["redis.shop:"]);
    let found = some(&stage, "kdev resolve redis.shop:", "").await;
    assert!(has(&found, "6379"), "{found:?}");
    // What is new is there at the next tab.
    let fresh = kdev_sim::Service::new("shop", "webcam").port("video", 8554, 8554);
    stage.cluster.add_service(fresh);
    let found = some(&stage, "kdev forward we", "we").await;
    assert_eq!(found, ["web:80", "webcam:8554"]);

    let found = some(&stage, "kdev run -n ", "").await;
    assert!(has(&found, "shop"), "{found:?}");
    assert_eq!(some(&stage, "kdev --context si", "si").await, ["sim"]);
    assert_eq!(some(&stage, "kdev --context=si", "si").await, ["sim"]);
    let found = some(&stage, "kdev conn", "conn").await;
    assert_eq!(found, ["connect"]);
    let found = some(&stage, "kdev run --via ", "").await;
    assert_eq!(found, ["auto", "direct", "relay"]);
    // A word that is no name leaves the line as it is: files are none.
    assert!(bash(&stage, "kdev forward /et", "/et").await.is_empty());
    let found = some(&stage, "kdev run -- bas", "bas").await;
    assert!(has(&found, "bash"), "{found:?}");
    let found = some(&stage, "kdev run bas", "bas").await;
    assert!(has(&found, "bash"), "{found:?}");
    let found = some(&stage, "kdev run -- cat /et", "/et").await;
    assert_eq!(found, ["/etc/"]);
    let found = some(&stage, "kdev --kubeconfig /et", "/et").await;
    assert_eq!(found, ["/etc/"]);
    // What has no selector or no address of its own cannot be intercepted.
    let found = some(&stage, "kdev intercept we", "we").await;
    assert_eq!(found, ["web:80"]);
    assert!(bash(&stage, "kdev intercept pe", "pe").await.is_empty());
    let found = some(&stage, "kdev forward pe", "pe").await;
    assert_eq!(found, ["peers:8080"]);
    // One's own intercepts, by their ids and Services.
    let claims = r#"[{"id": "k1mine", "owner": "me", "rule": {}},
            {"id": "k2bobs", "owner": "bob", "rule": {}}]"#;
    let web = stage.cluster.object("services", "shop", "web").unwrap();
    stage.cluster.put_object(
        "services",
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kdev-20000", "namespace": "shop",
                "labels": {
                    "app.kubernetes.io/managed-by": "kdev", "kdev.dev/origin-of": "web",
                },
                "annotations": {"kdev.dev/claims": claims},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Service", "name": "web",
                     "uid": web["metadata"]["uid"]},
                ],
            },
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 20000}]},
        }),
    );
    stage.home.write("config/kdev/config.toml", "owner = 'me'");
    let found = some(&stage, "kdev leave k", "k").await;
    assert_eq!(found, ["k1mine"]);
    let found = some(&stage, "kdev leave w", "w").await;
    assert_eq!(found, ["web"]);
    let found = some(&stage, "kdev restore w", "w").await;
    assert_eq!(found, ["web"]);
    // What kdev made for itself is nothing to dial.
    assert!(bash(&stage, "kdev forward kd", "kd").await.is_empty());
    // A namespace without the Service is not offered, by whomever it is asked.
    stage.cluster.add_namespace("empty");
    let found = some(&stage, "kdev forward redis.", "redis.").await;
    assert_eq!(found, ["redis.shop:"]);
    // Flags before it count.
    assert!(
        bash(&stage, "kdev forward -n empty we", "we")
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_left_out_in_silence() {
    let stage = Stage::set_up().await;
    stage.cluster.faults().hold_api(true);
    assert!(bash(&stage, "kdev forward we", "we").await.is_empty());
    stage.cluster.faults().hold_api(false);
    stage.cluster.stop_api().await;
    assert!(bash(&stage, "kdev forward we", "we").await.is_empty());
    std::fs::write(stage.home.path("dev"), "no: [kubeconfig").unwrap();
    assert!(bash(&stage, "kdev --context ", "").await.is_empty());
    stage.home.write("project/.kdev.toml", "broken");
    assert!(bash(&stage, "kdev forward we", "we").await.is_empty());
    assert_eq!(bash(&stage, "kdev conn", "conn").await, ["connect"]);
}

#[test]
fn every_shell_takes_its_script() {
    let home = Home::new();
    for (shell, check) in [
        ("bash", Some(("bash", "-n"))),
        ("zsh", Some(("zsh", "-n"))),
        ("fish", Some(("fish", "-n"))),
        ("powershell", None),
    ] {
        let output = home.output(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let script = text(&output.stdout);
        assert!(script.contains("KDEV_COMPLETE"), "{script}");
        let file = home.write("script", &script);
        if let Some((program, flag)) = check {
            let mut command = home.program(Path::new(program), &[flag, file.to_str().unwrap()]);
            match command.output() {
                Ok(output) => assert!(output.status.success(), "{}", text(&output.stderr)),
                Err(_) => println!("SKIPPED: {program}: it is not installed"),
            }
        }
    }
}

#[test]
fn every_command_has_a_man_page() {
    let home = Home::new();
    let folder = home.path("man1");
    let output = home.output(&["man", "--out", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let help = text(&home.output(&["--help"]).stdout);
    // Its groups of commands, which end where the options begin.
    let groups = help.split("\nOptions:\n").next().unwrap();
    let commands = groups.lines().filter_map(|line| line.strip_prefix("  "));
    let mut names: Vec<&str> = commands.filter_map(|l| l.split(' ').next()).collect();
    names.retain(|name| *name != "help");
    assert!(
        names.contains(&"run") && names.contains(&"man"),
        "{names:?}"
    );
    for name in names {
        let page = std::fs::read_to_string(folder.join(format!("kdev-{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH kdev-{name} 1")), "{page}");
        assert!(page.contains("Examples:"), "{page}");
        // What only the long help shows has its text here, too.
        let rows: Vec<&str> = page.lines().collect();
        for rows in rows
            .windows(2)
            .filter(|rows| rows[0].starts_with("\\fB\\-\\-"))
        {
            assert!(
                !rows[1].is_empty() && !rows[1].starts_with('.'),
                "{name}: {rows:?}"
            );
        }
    }
    for name in ["kdev", "kdev-config-show"] {
        assert!(folder.join(format!("{name}.1")).exists(), "{name}");
    }
    assert!(text(&home.output(&["man"]).stdout).contains(".TH kdev 1"));
    for (words, page) in [
        (&["run"][..], ".TH kdev-run 1"),
        (&["config", "show"], ".TH kdev-config-show 1"),
    ] {
        let output = home.output(&[&["man"], words].concat());
        assert!(text(&output.stdout).contains(page), "{words:?}");
    }
    let output = home.output(&["man", "fly"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("there is no command fly"), "{said}");
}
