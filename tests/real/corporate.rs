//! A laptop behind a corporate proxy: squid, which wants a login, is its only way out, and alone
//! knows the API server's name.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::lab;
use crate::program::{Running, finish, kdev_binary};

const PROXY: &str = "http://172.31.99.1:3128";
const LOGIN: &str = "http://me:p%40ss%3Aw@172.31.99.1:3128";

/// The laptop; gone when this is dropped.
struct Laptop {
    folder: tempfile::TempDir,
}

impl Laptop {
    fn set_up() -> Self {
        let laptop = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        lab::script("corp", &["up"]).unwrap();
        laptop
    }

    /// The account's kubeconfig, with the name that only the proxy resolves, and perhaps with
    /// the proxy in it.
    fn kubeconfig(&self, account: &str, proxy_url: Option<&str>) -> PathBuf {
        let text = std::fs::read_to_string(lab::kubeconfig(account)).unwrap();
        let mut text = text.replace("https://127.0.0.1:", "https://kubernetes:");
        if let Some(url) = proxy_url {
            text = text.replace("{server:", &format!("{{proxy-url: \"{url}\", server:"));
            assert!(text.contains("proxy-url"), "{text}");
        }
        let path = self.folder.path().join(account);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command on the laptop, without proxy variables.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/lab/corp");
        let mut command = Command::new(script);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name);
            command.env_remove(name.to_ascii_lowercase());
        }
        command
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("XDG_CACHE_HOME", "/dev/null/cache")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.arg("exec").arg(program);
        command
    }

    /// kdev on the laptop, as account `dev`, with `proxy` for everything.
    fn kdev(&self, proxy: &str) -> Command {
        let mut command = self.command(kdev_binary());
        command
            .env("KUBECONFIG", self.kubeconfig("dev", None))
            .env("HTTPS_PROXY", proxy)
            .env("HTTP_PROXY", proxy);
        command
    }

    /// `curl` on the laptop, and what it prints.
    fn curl(&self, args: &[&str]) -> String {
        let mut command = self.command("curl");
        let done = finish(command.args(["-sS", "-m", "20"]).args(args), b"");
        done.ok()
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        if let Err(error) = lab::script("corp", &["down"]) {
            eprintln!("{error}");
        }
    }
}

/// A web server of the company on this machine, which only the proxy reaches; and the requests
/// that it got.
fn intranet() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut buffer = [0; 4096];
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(n @ 1..) => head.extend(&buffer[..n]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            log.lock().unwrap().push(head);
            let answer =
                "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nintranet";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, seen)
}

#[test]
#[ignore = "needs the lab"]
fn behind_a_corporate_proxy_everything_works() {
    let laptop = Laptop::set_up();
    let (port, seen) = intranet();
    let inside = format!("http://intranet.corp:{port}/");
    let run = |argv: &[&str]| {
        let mut command = laptop.kdev(LOGIN);
        finish(command.args(["run", "--"]).args(argv), b"")
    };
    let done = run(&["curl", "-sS", "-m", "20", "http://web.shop/"]);
    assert!(done.err.contains(PROXY), "it is said: {}", done.err);
    assert!(!done.err.contains("p%40ss"), "{}", done.err);
    assert!(done.ok().starts_with("web-"));

    // What is not the cluster's: plain HTTP as a proxy's request, and streams.
    assert_eq!(run(&["curl", "-sS", "-m", "20", &inside]).ok(), "intranet");
    let head = seen.lock().unwrap().pop().unwrap();
    assert!(
        head.contains("\r\nVia: ") && head.contains("squid"),
        "{head}"
    );
    for script in [
        "curl -sS -m 20 --proxytunnel \"$0\"",
        "curl -sS -m 20 --socks5-hostname \"$KDEV_SOCKS\" \"$0\"",
    ] {
        let said = run(&["sh", "-c", script, &inside]).ok();
        assert_eq!(said, "intranet", "{script}");
    }
    seen.lock().unwrap().clear();

    let connect = Running::start(laptop.kdev(LOGIN).args(["connect", "--json"]));
    let address = connect.proxy().to_string();
    let said = laptop.curl(&["--socks5-hostname", &address, "http://web.shop/"]);
    assert!(said.starts_with("web-"), "{said}");
    let said = laptop.curl(&["-x", &format!("http://{address}"), &inside]);
    assert_eq!(said, "intranet");
    connect.stop();

    let mut forward = laptop.kdev(LOGIN);
    let forward = Running::start(forward.args(["forward", "--json", "web.shop:80=0"]));
    let said = laptop.curl(&[&format!("http://{}/", forward.port(0))]);
    assert!(said.starts_with("web-"), "{said}");
    forward.stop();

    // The kubeconfig's own proxy, with no variable set.
    let kubeconfig = laptop.kubeconfig("dev", Some(LOGIN));
    let mut own = laptop.command(kdev_binary());
    own.env("KUBECONFIG", kubeconfig);
    own.args(["run", "--", "curl", "-sS", "-m", "20", "http://web.shop/"]);
    let said = finish(&mut own, b"").ok();
    assert!(said.starts_with("web-"), "{said}");
}

#[test]
#[ignore = "needs the lab"]
fn behind_a_corporate_proxy_the_doctor_tells_what_goes_where() {
    let laptop = Laptop::set_up();
    let check = |found: &Value, id: &str| {
        let checks = found["checks"].as_array().unwrap();
        let check = checks.iter().find(|c| c["id"] == id).unwrap();
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("detail"), text("fix"))
    };
    let doctor = |proxy: &str| -> (i32, Value) {
        let mut command = laptop.kdev(proxy);
        let done = finish(command.args(["doctor", "--json"]), b"");
        (done.code, serde_json::from_str(&done.out).unwrap())
    };
    let (code, found) = doctor(LOGIN);
    assert_eq!(code, 0, "{found:#}");
    let (status, detail, _) = check(&found, "api-server");
    assert_eq!(status, "ok", "{detail}");
    assert!(
        detail.contains(&format!("{PROXY} (HTTPS_PROXY)")),
        "{detail}"
    );
    let (status, detail, _) = check(&found, "local.proxies");
    assert_eq!(status, "ok", "{detail}");
    assert!(detail.contains("lets you in"), "{detail}");

    for (proxy, said, fix) in [
        (
            PROXY,
            "asks for a login (Basic realm=\"corp\"",
            "USER:PASSWORD",
        ),
        (
            "http://me:wrong@172.31.99.1:3128",
            "does not accept user \"me\"",
            "%XX",
        ),
        ("http://172.31.99.1:3129", "cannot be reached", "NO_PROXY"),
    ] {
        let (code, found) = doctor(proxy);
        assert_eq!(code, 1, "{proxy}: {found:#}");
        let (status, detail, advice) = check(&found, "api-server");
        assert_eq!(status, "fail", "{detail}");
        assert!(
            detail.contains(said) && !detail.contains("wrong@"),
            "{detail}"
        );
        assert!(advice.contains(fix), "{advice}");
    }
}

#[test]
#[ignore = "needs the lab"]
fn without_the_proxy_or_its_login_there_is_one_clear_error() {
    let laptop = Laptop::set_up();
    for (proxy, said) in [
        ("", "kubernetes"),
        (PROXY, "asks for a login"),
        (
            "http://me:secret@172.31.99.1:3128",
            "does not accept user \"me\"",
        ),
    ] {
        let mut command = laptop.kdev(proxy);
        let done = finish(command.args(["run", "--", "true"]), b"");
        assert_eq!(done.code, 125, "{proxy}: {done:?}");
        let errors = done.err.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{done:?}");
        assert!(done.err.contains(said), "{done:?}");
        assert!(!done.err.contains("secret"), "{done:?}");
    }
    // A helper in place of the URL's login.
    let mut command = laptop.kdev(PROXY);
    command.env(
        "KDEV_PROXY_AUTH_HELPER",
        "printf 'Basic %s\\n' \"$(printf 'me:p@ss:w' | base64)\"",
    );
    command.args(["run", "--", "curl", "-sS", "-m", "20", "http://web.shop/"]);
    let said = finish(&mut command, b"").ok();
    assert!(said.starts_with("web-"), "{said}");
}
