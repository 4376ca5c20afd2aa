//! Commands and shells beside a running `connect`.

use crate::lab;
use crate::program::{Running, finish, kdev};

/// Prints the proxy that a command was given, and what it reaches through it.
const LOOK: &str = "echo \"$HTTP_PROXY\"; curl -sS -m 20 http://web.shop/";

/// What [`LOOK`] printed: the proxy, and the pod that answered.
fn looked(out: &str) -> (String, String) {
    let mut lines = out.lines().map(str::to_owned);
    (lines.next().unwrap(), lines.next().unwrap_or_default())
}

#[test]
#[ignore = "needs the lab"]
fn a_command_beside_a_connect_of_the_same_settings_uses_it() {
    let pods = lab::ready_pods("web");
    let connected = Running::connect("dev");
    let address = format!("http://{}", connected.proxy());
    let run = |account, flags: &[&str]| {
        let mut command = kdev(account);
        command
            .arg("run")
            .args(flags)
            .args(["--", "sh", "-c", LOOK]);
        looked(&finish(&mut command, b"").ok())
    };
    let (proxy, pod) = run("dev", &[]);
    assert_eq!(proxy.trim_end_matches('/'), address);
    assert!(pods.contains(&pod), "{pod}");
    // Another user's rights, or a user who wants none of it, get a session of their own.
    for (account, flags) in [("edit", &[][..]), ("dev", &["--own-session"])] {
        let (proxy, pod) = run(account, flags);
        assert_ne!(proxy.trim_end_matches('/'), address, "{account}");
        assert!(pods.contains(&pod), "{account}: {pod}");
    }
    connected.stop();
}

#[test]
#[ignore = "needs the lab"]
fn a_shell_takes_the_variables_of_a_connect_and_gives_them_back() {
    let pods = lab::ready_pods("web");
    let connected = Running::connect("dev");
    let mut env = kdev("dev");
    let on = finish(env.args(["env", "--shell", "bash"]), b"").ok();
    let mut env = kdev("dev");
    let off = finish(env.args(["env", "--shell", "bash", "--unset"]), b"").ok();
    let script = format!("{on}\n{LOOK}\n{off}\necho \"left: $HTTP_PROXY\"");
    let mut shell = std::process::Command::new("bash");
    for name in ["HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"] {
        shell.env_remove(name);
    }
    let out = finish(shell.args(["-c", &script]), b"").ok();
    let (proxy, pod) = looked(&out);
    let address = format!("http://{}", connected.proxy());
    assert_eq!(proxy.trim_end_matches('/'), address);
    assert!(pods.contains(&pod), "{out}");
    assert!(out.ends_with("left: \n"), "{out}");
    connected.stop();
    // Nothing to take from once it is gone.
    let gone = finish(kdev("dev").arg("env"), b"").failed();
    assert!(gone.contains("kdev connect"), "{gone}");
}
