use std::path::Path;

use crate::share::{Stage, ended};

/// Values that a shell could make something else of.
const ODD: &str = r#"a'b "c" $HOME `id` \ \\ %2C ; # é"#;

/// Runs `script` in a shell in which `kdev` is a command.
async fn in_shell(stage: &Stage, shell: &str, script: &str) -> (i32, String, String) {
    let mut command = stage.home.program(Path::new(shell), &["-c", script]);
    let folder = Path::new(env!("CARGO_BIN_EXE_kdev")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("KUBECONFIG", stage.home.path("dev"))
        // Without a locale fish takes the bytes of a letter for letters.
        .env("LC_ALL", "C.UTF-8")
        .env("npm_config_proxy", ODD)
        .env("JAVA_TOOL_OPTIONS", ODD);
    let mut command = tokio::process::Command::from(command);
    ended(command.kill_on_drop(true)).await
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_gets_into_the_cluster_and_out_again() {
    let stage = Stage::set_up().await;
    let (_connect, ready) = stage.connect(&[]).await;
    let proxy = ready["proxy"].as_str().unwrap();
    let posix = "before=$(env | grep -v -e ^_= -e ^PIPESTATUS | sort)
        eval \"$(kdev env)\"
        echo \"proxy $KDEV_HTTP\"
        curl -sS http://web.shop/
        # Again, as a new terminal in an editor does; nothing is added twice.
        eval \"$(kdev env)\"
        printf '%s\\n' \"$JAVA_TOOL_OPTIONS\"
        eval \"$(kdev env --unset)\"
        after=$(env | grep -v -e ^_= -e ^PIPESTATUS | sort)
        [ \"$before\" = \"$after\" ] && echo same || printf '%s\\n' \"$before\" --- \"$after\"";
    let fish = "set before (env | grep -v -e ^_= | sort)
        kdev env | source
        echo \"proxy $KDEV_HTTP\"
        curl -sS http://web.shop/
        kdev env | source
        printf '%s\\n' $JAVA_TOOL_OPTIONS
        kdev env --unset | source
        set after (env | grep -v -e ^_= | sort)
        test \"$before\" = \"$after\"; and echo same; or printf '%s\\n' $before --- $after";
    for (shell, script) in [
        ("bash", posix),
        ("sh", posix),
        ("zsh", posix),
        ("fish", fish),
    ] {
        if !has(shell) {
            println!("SKIPPED: {shell}: it is not installed");
            continue;
        }
        let (code, shown, said) = in_shell(&stage, shell, script).await;
        assert_eq!((code, said.as_str()), (0, ""), "{shell}: {shown}");
        assert!(
            shown.contains(&format!("proxy {proxy}\n")),
            "{shell}: {shown}"
        );
        assert!(shown.contains("hello from web-"), "{shell}: {shown}");
        // What is the user's own stays as it is, with kdev's options behind it, once.
        assert!(
            shown.contains(&format!("{ODD} -Dhttp.proxyHost=")),
            "{shell}: {shown}"
        );
        assert_eq!(
            shown.matches("-Dhttp.proxyHost=").count(),
            1,
            "{shell}: {shown}"
        );
        assert!(shown.ends_with("same\n"), "{shell}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_scripts_read_what_was_meant() {
    let stage = Stage::set_up().await;
    let (_connect, ready) = stage.connect(&[]).await;
    let (code, json, said) = in_shell(&stage, "sh", "exec kdev env --shell json").await;
    assert_eq!(code, 0, "{said}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["KDEV_HTTP"], ready["proxy"]);
    assert_eq!(json["KDEV_NAMESPACE"], "shop");
    let (code, dotenv, said) = in_shell(&stage, "sh", "exec kdev env --shell dotenv").await;
    assert_eq!(code, 0, "{said}");
    let names = json.as_object().unwrap();
    assert_eq!(dotenv.lines().count(), names.len());
    for line in dotenv.lines() {
        let (name, value) = line.split_once('=').unwrap();
        assert_eq!(
            Some(unquoted(value).as_str()),
            names[name].as_str(),
            "{line}"
        );
    }
    let (code, _, said) = in_shell(&stage, "sh", "exec kdev env --unset --shell dotenv").await;
    assert_eq!(code, 1, "{said}");
}

/// A quoted value of a dotenv file, as docker compose reads it.
fn unquoted(value: &str) -> String {
    if let Some(raw) = value.strip_prefix('\'') {
        return raw.strip_suffix('\'').unwrap().to_owned();
    }
    let mut chars = value
        .strip_prefix('"')
        .unwrap()
        .strip_suffix('"')
        .unwrap()
        .chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (_, true) => match chars.next().unwrap() {
                'n' => '\n',
                other => other,
            },
            (c, false) => c,
        });
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connect_it_says_what_to_do() {
    let stage = Stage::set_up().await;
    let (code, shown, said) = stage.output(&["env"]).await;
    assert_eq!((code, shown.as_str()), (1, ""));
    assert!(said.contains("in another terminal"), "{said}");
    let (_connect, _) = stage.connect(&[]).await;
    let (code, _, said) = stage.output(&["env", "-n", "default"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("namespace shop"), "{said}");
    // Taking back needs nobody.
    assert_eq!(stage.output(&["env", "--unset"]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_limit_on_open_files_is_raised_to_what_may_be() {
    let stage = Stage::set_up().await;
    let script = "ulimit -S -n 256
        ulimit -H -n
        exec kdev run --own-session -- sh -c 'ulimit -S -n'";
    let (code, shown, said) = in_shell(&stage, "sh", script).await;
    assert_eq!(code, 0, "{said}");
    let limits: Vec<u64> = shown
        .lines()
        .map(|line| line.parse().unwrap_or(u64::MAX))
        .collect();
    let [hard, soft] = limits[..] else {
        panic!("{shown}");
    };
    assert_eq!(soft, hard.min(20_000), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_session_there_is_will_do() {
    let stage = Stage::set_up().await;
    stage.cluster.add_namespace("other");
    let (code, _, said) = stage.output(&["env"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("start `kdev connect`"), "{said}");
    let (_first, ready) = stage.connect(&["-n", "other"]).await;
    let (code, shown, said) = stage.output(&["env", "--shell", "bash"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("namespace other"), "{said}");
    assert!(shown.contains(ready["proxy"].as_str().unwrap()), "{shown}");
    // Whoever asks for another gets none.
    let (code, _, said) = stage.output(&["env", "-n", "shop"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("only one of context"), "{said}");
    // Of several, the user says which.
    let (_second, _) = stage.connect(&["-n", "other", "--via", "direct"]).await;
    let (code, _, said) = stage.output(&["env"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("--namespace"), "{said}");
}
