//! Credentials that end in the middle of a session: a plugin that rotates them, one that fails,
//! one that hangs. The full run rotates a token of 60 s for 5 minutes instead of one of 6 s for 30 s.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::app::{Failure, Way};
use crate::lab;
use crate::program::{Done, Running, finish, kdev_with};

/// How long a session may outlive credentials that are refused for good: kdev's 30 s, the 10 s for
/// which the API server remembers a token, and time to end.
const LOST_LIMIT: Duration = Duration::from_secs(90);

/// May not list Services: kdev asks the API server about each name that it does not know yet, so
/// that every question needs good credentials.
const ACCOUNT: &str = "dev-no-list-services";

/// An account whose kubeconfig has a plugin. The plugin mints a token of [`ACCOUNT`] that is
/// bound to a secret: when that is gone, so is the token.
struct Login {
    folder: TempDir,
    name: String,
}

impl Login {
    /// `before` is shell code that the plugin runs first; `$n` counts its runs. Tokens say that
    /// they last `life`.
    fn new(what: &str, life: Option<Duration>, before: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let login = Self {
            folder,
            name: format!("kdev-real-{what}-{}", std::process::id()),
        };
        let admin = lab::kubeconfig("admin");
        let (dir, name) = (login.folder.path().display(), &login.name);
        let end = life.map_or(String::new(), |life| {
            format!(
                ",\"expirationTimestamp\":\"'$(date -u -d '+{} seconds' +%Y-%m-%dT%H:%M:%SZ)'\"",
                life.as_secs()
            )
        });
        let life = life.map_or(0, |life| life.as_secs());
        let script = format!(
            r#"set -e
n=$(($(cat {dir}/issued 2>/dev/null | wc -l) + 1))
{before}
kubectl() {{ command kubectl --kubeconfig {admin} -n shop "$@"; }}
kubectl create secret generic {name}-$n >/dev/null
token=$(printf '{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{{"expirationSeconds":600,"boundObjectRef":{{"kind":"Secret","apiVersion":"v1","name":"{name}-%s"}}}}}}' $n |
  kubectl create --raw /api/v1/namespaces/shop/serviceaccounts/{ACCOUNT}/token -f - | sed -E 's/.*"token":"([^"]+)".*/\1/')
echo "$n $(($(date +%s) + {life}))" >> {dir}/issued
echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"'$token'"{end}}}}}'
"#,
            admin = admin.display()
        );
        std::fs::write(login.path("plugin"), script).unwrap();
        let text = std::fs::read_to_string(lab::kubeconfig(ACCOUNT)).unwrap();
        let (head, rest) = text.split_once("user: {token: \"").unwrap();
        let (_, tail) = rest.split_once("\"}").unwrap();
        let exec = format!(
            "{head}user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: ['{}'], interactiveMode: Never}}}}{tail}",
            login.path("plugin").display()
        );
        std::fs::write(login.path("config"), exec).unwrap();
        login
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kdev(&self) -> Command {
        kdev_with(&self.path("config"))
    }

    /// The runs so far, each with the time at which its token ends.
    fn issued(&self) -> Vec<(u32, u64)> {
        let text = std::fs::read_to_string(self.path("issued")).unwrap_or_default();
        let parse = |line: &str| {
            let (n, end) = line.split_once(' ')?;
            Some((n.parse().ok()?, end.parse().ok()?))
        };
        text.lines().filter_map(parse).collect()
    }

    fn revoke(&self, n: u32) {
        let secret = format!("{}-{n}", self.name);
        let args = [
            "-n",
            "shop",
            "delete",
            "secret",
            "--ignore-not-found",
            &secret,
        ];
        lab::kubectl(&args).unwrap();
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        for (n, _) in self.issued() {
            self.revoke(n);
        }
    }
}

fn connect(login: &Login) -> Running {
    Running::start(login.kdev().args(["connect", "--json"]))
}

/// One request to a pod, and one question about a name that nobody knew before.
async fn ask(way: Way, i: usize) -> Result<(), String> {
    let answer = way.get("web.shop:80", "/").await;
    match answer {
        Ok(answer) if answer.status == 200 => {}
        other => return Err(format!("web.shop: {other:?}")),
    }
    let name = format!("nobody-{i}.shop:80");
    match way.open(&name).await {
        Err(Failure::Status(502, text)) if text.contains("was not found") => Ok(()),
        Err(other) => Err(format!("{name}: {other:?}")),
        Ok(_) => Err(format!("{name} exists")),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_rotated_token_fails_no_request() {
    let full = lab::full();
    let (life, length) = if full { (60, 300) } else { (6, 30) };
    let login = Login::new("rotate", Some(Duration::from_secs(life)), "");
    let kdev = connect(&login);
    let way = Way::Connect(kdev.proxy());
    let begun = Instant::now();
    let (mut asked, mut revoked) = (0, 0);
    while begun.elapsed() < Duration::from_secs(length) {
        if let Err(error) = ask(way, asked).await {
            panic!("after {asked} requests: {error}");
        }
        asked += 1;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        for (n, end) in login.issued() {
            if n > revoked && end <= now {
                login.revoke(n);
                revoked = n;
            }
        }
    }
    let runs = login.issued().len() as u64;
    println!("{asked} requests, {runs} tokens, {revoked} of them revoked, 0 failures");
    // Each is used up to its end, and what the plugin takes on a busy machine is on top.
    assert!(runs + 1 >= length / life, "{runs}");
    assert!(runs <= 3 * length / life + 1, "{runs}");
    let said = kdev.stop();
    // A plugin that is slow on a busy machine is said, and no fault.
    let mut faults = said.lines().filter(|l| !l.contains("has not finished yet"));
    assert!(
        !faults.any(|l| l.contains("credentials") || l.contains("login")),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn a_revoked_token_that_nothing_renews_is_said_once_and_ends_the_session() {
    let fails = "[ $n = 1 ] || { echo 'no ticket left' >&2; exit 3; }";
    let login = Login::new("revoke", None, fails);
    let mut kdev = connect(&login);
    let way = Way::Connect(kdev.proxy());
    ask(way, 0).await.unwrap();
    login.revoke(1);
    let begun = Instant::now();
    let mut i = 0;
    let code = loop {
        assert!(
            begun.elapsed() < LOST_LIMIT,
            "it does not end: {}",
            kdev.said()
        );
        i += 1;
        let outcome = ask(way, i).await;
        if let Some(code) = kdev.ended() {
            break code;
        }
        if let Err(error) = outcome
            && error.contains("Status")
        {
            assert!(error.contains("no ticket left"), "{error}");
        }
    };
    let said = kdev.said();
    println!("ended after {:?}: {said}", begun.elapsed());
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches("could not be renewed").count(), 1, "{said}");
    assert_eq!(
        said.matches("the login of this session is lost").count(),
        1,
        "{said}"
    );
}

#[test]
#[ignore = "needs the lab"]
fn a_plugin_that_fails_or_hangs_costs_one_line() {
    let one_error = |done: &Done| {
        let errors = done.err.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{done:?}");
        assert_eq!(done.code, 125, "{done:?}");
    };
    let login = Login::new("fail", None, "echo 'no ticket' >&2; exit 3");
    let done = finish(login.kdev().args(["run", "--", "true"]), b"");
    one_error(&done);
    for part in [
        "credential plugin \"/bin/sh\"",
        "exit status: 3",
        "no ticket",
    ] {
        assert!(done.err.contains(part), "{done:?}");
    }

    let login = Login::new("hang", None, "exec sleep 1000");
    let begun = Instant::now();
    let mut command = login.kdev();
    command.env("KDEV_LOGIN_TIMEOUT", "4");
    let done = finish(command.args(["run", "--", "true"]), b"");
    one_error(&done);
    assert!(done.err.contains("did not end within 4 s"), "{done:?}");
    assert_eq!(
        done.err.matches("waiting for the login").count(),
        1,
        "{done:?}"
    );
    println!("given up after {:?}", begun.elapsed());
}
