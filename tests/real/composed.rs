//! `kdev run -- docker compose up`: every service of a project sees the cluster.

mod again;
mod shapes;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::joined::Laptop;
use crate::lab::{self, TOOLS};
use crate::program::{Done, finish};

/// How long what begins or ends may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A server of its own, which says who came, and ends when it is told to.
const SERVER: &str = "import http.server as h, os
class S(h.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/exit': os._exit(3)
        self.send_response(200); self.end_headers(); self.wfile.write(b'own ' + self.client_address[0].encode())
    def log_message(self, *_): pass
h.HTTPServer(('', 8000), S).serve_forever()";

/// A project in a folder of its own. Dropping it removes whatever is left of it.
struct Project {
    name: String,
    folder: tempfile::TempDir,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let project = Self {
            name: format!("shop-{}-{number}", std::process::id()),
            folder: tempfile::tempdir().unwrap(),
        };
        for (file, text) in files {
            let text = text.replace("TOOLS", TOOLS).replace("SERVER", &server());
            std::fs::write(project.folder.path().join(file), text).unwrap();
        }
        project
    }

    /// `kdev run FLAGS -- docker compose ARGS`.
    fn kdev(&self, laptop: &Laptop, flags: &[&str], args: &[&str]) -> Command {
        let mut command = laptop.run_of(flags);
        command.args(["docker", "compose", "-p", &self.name]);
        command.args(args).current_dir(&self.folder);
        command
    }

    /// `docker compose ARGS`, without kdev.
    fn compose(&self, args: &[&str]) -> Done {
        let mut command = Command::new("docker");
        command.args(["compose", "-p", &self.name]);
        finish(command.args(args).current_dir(&self.folder), b"")
    }

    /// What the engine has of the project, and of kdev's beside it.
    fn left(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let containers = [
            "ps",
            "-a",
            "--filter",
            &label,
            "--format",
            "{{.Names}} {{.Status}}",
        ];
        let networks = [
            "network",
            "ls",
            "--filter",
            &label,
            "--format",
            "network {{.Name}}",
        ];
        [
            lab::docker(&containers).unwrap(),
            lab::docker(&networks).unwrap(),
        ]
        .concat()
    }

    /// Its companions that are there.
    fn companions(&self) -> Vec<String> {
        let all = self.left();
        let names = all
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let own = format!("{}-kdev-", self.name);
        names
            .filter(|name| name.starts_with(&own))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until what its worker says from now on is that it sees the cluster and its own project.
    fn sees_anew(&self, when: &str) {
        let said = || self.compose(&["logs", "--no-log-prefix", "worker"]).out;
        let before = said().lines().count();
        let sees = |line: &str| line.starts_with("saw web-") && line.contains(" own 1");
        until(&format!("the worker sees nothing {when}"), || {
            let all = said();
            // One line may have been on its way.
            let since: Vec<&str> = all.lines().skip(before + 1).collect();
            since.len() >= 2 && since.iter().rev().take(2).all(|line| sees(line))
        });
    }

    /// Its files with what stands in them.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        files
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.compose(&["down", "-v", "-t", "0", "--remove-orphans"]);
    }
}

/// The command of the server, in a list of YAML.
fn server() -> String {
    serde_json::to_string(&["python3", "-u", "-c", SERVER]).unwrap()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for the end of a kdev, and gives its exit code.
fn ended(kdev: &mut Child) -> Option<i32> {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(status) = kdev.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < limit, "kdev goes on");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn signal(kdev: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &kdev.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// The folders of a kdev, which have the secrets of the project.
fn folders(kdev: &Child) -> Vec<String> {
    let own = format!("kdev-{}-", kdev.id());
    let all = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap_or_default());
    names.filter(|name| name.starts_with(&own)).collect()
}

fn curl(url: &str) -> Done {
    finish(Command::new("curl").args(["-sS", "-m", "3", url]), b"")
}

/// Several networks, aliases, health checks, `extends`, profiles, secrets, a service of the host's network,
/// and a job that says what it sees.
const WHOLE: [(&str, &str); 3] = [
    (
        "compose.yaml",
        r#"
include: [other.yaml]
services:
  job:
    extends: {file: base.yaml, service: base}
    depends_on:
      store: {condition: service_healthy}
    networks: [front, back]
    secrets: [word]
    environment: {LEFT: "a$$b ${UNSET_HERE:-c}"}
    command:
      - sh
      - -ec
      - |
        echo "host $(hostname) left $$LEFT word $$(cat /run/secrets/word)"
        echo "cluster $$(curl -sS http://web/)"
        echo "rows $$(psql postgres://shop:shop@pg.shop:5432/shop -Atc 'select count(*) from orders')"
        for name in store shelf redis $$PROJECT-store-1; do echo "$$name $$(curl -sS http://$$name:8000/)"; done
        env | grep -i _proxy && exit 9
        exit 7
  store:
    image: TOOLS
    networks: {back: {aliases: [shelf, redis]}}
    ports: ["127.0.0.1:18121:8000"]
    healthcheck: {test: [CMD, curl, -sf, "http://127.0.0.1:8000/"], interval: 1s}
    command: SERVER
  outsider:
    image: TOOLS
    network_mode: host
    command: [sleep, "600"]
  tool:
    image: TOOLS
    profiles: [debug]
    command: [sleep, "600"]
networks: {front: {}, back: {}}
secrets: {word: {environment: PROJECT}}
"#,
    ),
    (
        "base.yaml",
        r#"
services:
  base:
    image: TOOLS
    hostname: box
    environment: [PROJECT]
"#,
    ),
    (
        "other.yaml",
        "services: {other: {image: TOOLS, command: [sleep, '600']}}\n",
    ),
];

#[test]
#[ignore = "needs the lab"]
fn every_service_of_a_project_sees_the_cluster() {
    let laptop = Laptop::new();
    let project = Project::new(&WHOLE);
    let before = project.files();
    let args = ["up", "--exit-code-from", "job", "--no-color", "-t", "1"];
    let mut kdev = project.kdev(&laptop, &[], &args);
    let done = finish(kdev.env("PROJECT", &project.name), b"");
    assert_eq!(done.code, 7, "{done:?}");
    let job: Vec<&str> = done
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("job-1"))
        .collect();
    let said = |word: &str| {
        let line = job
            .iter()
            .find_map(|line| line.split_once(&format!("| {word} ")));
        line.map_or_else(
            || panic!("{word}: {done:?}"),
            |(_, said)| said.trim().to_owned(),
        )
    };
    assert_eq!(
        said("host"),
        format!("box left a$b c word {}", project.name)
    );
    assert!(said("cluster").starts_with("web-"), "{done:?}");
    assert_eq!(said("rows"), "1000");
    // The project's own names, also where the cluster has the same.
    for name in [
        "store",
        "shelf",
        "redis",
        &format!("{}-store-1", project.name),
    ] {
        assert!(said(name).starts_with("own 1"), "{name}: {done:?}");
    }
    assert!(
        done.err
            .contains("service outsider stays outside the cluster"),
        "{done:?}"
    );
    // Neither what was not asked for nor kdev's own is shown.
    assert!(
        !done.out.contains("tool-1") && !done.out.contains("kdev-"),
        "{done:?}"
    );
    assert_eq!(project.companions(), [""; 0]);
    assert_eq!(project.files(), before);
    assert_eq!(project.compose(&["down", "-t", "0"]).code, 0);
    assert_eq!(project.left(), "");
}

const SERVERS: [(&str, &str); 1] = [(
    "docker-compose.yml",
    r#"
services:
  api:
    image: TOOLS
    ports: ["127.0.0.1:PORT:8000"]
    restart: always
    command: SERVER
  worker:
    image: TOOLS
    stop_grace_period: 20s
    command: [sh, -c, "trap 'sleep 4; curl -sS http://api:8000/ && exit 4' TERM; while :; do echo \"saw $$(curl -sS -m 3 http://web/) $$(curl -sS -m 3 http://api:8000/)\"; sleep 0.5; done"]
  pair:
    image: TOOLS
    scale: 2
    command: [sleep, "600"]
"#,
)];

fn servers(port: &str) -> Project {
    let [(file, text)] = SERVERS;
    Project::new(&[(file, &text.replace("PORT", port))])
}

#[test]
#[ignore = "needs the lab"]
fn a_project_in_the_background_lives_as_compose_lets_it() {
    let laptop = Laptop::new();
    let project = servers("18122");
    let mut kdev = project.kdev(&laptop, &[], &["up", "-d", "-t", "1"]);
    let mut kdev = kdev.stderr(Stdio::null()).spawn().unwrap();
    project.sees_anew("at first");
    assert!(curl("http://127.0.0.1:18122/").out.starts_with("own "));
    let inside = project.compose(&["exec", "-T", "api", "curl", "-sS", "http://web.shop/"]);
    assert!(inside.out.starts_with("web-"), "{inside:?}");
    // Those that share one network with none stay as they were.
    let both = project.compose(&["ps", "-q", "pair"]).ok();
    assert_eq!(both.lines().count(), 2, "{both}");
    // Restarted by Compose, and by the engine after its end.
    project.compose(&["restart", "-t", "1", "worker"]).ok();
    project.sees_anew("after its restart");
    assert_ne!(curl("http://127.0.0.1:18122/exit").code, 0);
    until("the server is not there again", || {
        curl("http://127.0.0.1:18122/").code == 0
    });
    let api = format!("{}-api-1", project.name);
    let restarts = lab::docker(&["inspect", "--format", "{{.RestartCount}}", &api]);
    assert_eq!(restarts.unwrap().trim(), "1");
    let again = project.compose(&["exec", "-T", "api", "curl", "-sS", "http://web.shop/"]);
    assert!(again.out.starts_with("web-"), "{again:?}");
    // A second command of the project leaves what the first serves.
    let companions = project.companions();
    let ids = || {
        let label = format!("label=com.docker.compose.project={}", project.name);
        lab::docker(&["ps", "-q", "--filter", &label]).unwrap()
    };
    let before = ids();
    let args = ["up", "-d", "-t", "1", "--remove-orphans", "worker"];
    let mut second = project.kdev(&laptop, &["-q"], &args);
    let mut second = second.stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(ended(&mut second), Some(0));
    assert_eq!(ids(), before);
    assert_eq!(project.companions(), companions);
    project.sees_anew("after the second command");
    // Beside them one that ends by itself, on a network of its own.
    let script = "curl -sS http://web/; curl -sS http://api:8000/; cat; exit 5";
    let args = ["run", "--rm", "-T", "worker", "sh", "-c", script];
    let companions = project.companions();
    let once = finish(&mut project.kdev(&laptop, &["-q"], &args), b"by stdin");
    assert_eq!(once.code, 5, "{once:?}");
    let seen = ["web-", "own 1", "by stdin"].map(|what| once.out.contains(what));
    assert_eq!(seen, [true; 3], "{once:?}");
    assert_eq!(project.companions(), companions);
    project.sees_anew("after that");
    // Its end is the end of kdev, which leaves nothing.
    project.compose(&["down", "-t", "1"]);
    assert_eq!(ended(&mut kdev), Some(0));
    until("something is left", || project.left().is_empty());
}

/// A job that needs a service, and publishes what a container of `up` would not.
const ALONE: &str = r#"
services:
  store:
    image: TOOLS
    command: SERVER
    healthcheck: {test: [CMD, curl, -sf, "http://127.0.0.1:8000/"], interval: 1s}
  job:
    image: TOOLS
    ports: ["127.0.0.1:18127:8000"]
    depends_on: {store: {condition: service_healthy}}
    command: [sh, -c, "curl -sS http://web/; curl -sS http://store:8000/; exit 3"]
"#;

#[test]
#[ignore = "needs the lab"]
fn a_container_beside_its_service_leaves_what_it_needs() {
    let laptop = Laptop::new();
    let project = Project::new(&[("compose.yaml", ALONE)]);
    // The ports of its service are published by `up` alone, so who has one is not in the way.
    let taken = std::net::TcpListener::bind("127.0.0.1:18127").unwrap();
    let args = ["run", "--rm", "-T", "-p", "127.0.0.1:18126:8000", "job"];
    let once = finish(&mut project.kdev(&laptop, &["-q"], &args), b"");
    assert_eq!(once.code, 3, "{once:?}");
    let seen = ["web-", "own 1"].map(|what| once.out.contains(what));
    assert_eq!(seen, [true; 2], "{once:?}");
    until("companions", || project.companions().is_empty());
    let store = project.compose(&["ps", "-q", "store"]).ok();
    assert_eq!(store.lines().count(), 1);
    // Its own are.
    let args = ["run", "--rm", "-T", "-p", "127.0.0.1:18127:8000", "job"];
    let refused = finish(&mut project.kdev(&laptop, &["-q"], &args), b"");
    assert!(
        refused.code == 125 && refused.err.contains("18127"),
        "{refused:?}"
    );
    drop(taken);
    assert_eq!(project.companions(), [""; 0]);
    assert_eq!(project.compose(&["down", "-t", "0"]).code, 0);
    assert_eq!(project.left(), "");
}

#[test]
#[ignore = "needs the lab"]
fn the_end_of_a_project_leaves_no_companion() {
    let laptop = Laptop::new();
    for (how, port) in [("-INT", "18123"), ("-TERM", "18124"), ("-KILL", "18125")] {
        let project = servers(port);
        let mut kdev = project.kdev(&laptop, &[], &["up", "-t", "1"]);
        let mut kdev = kdev
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}/");
        until("the server is not there", || curl(&url).code == 0);
        assert_eq!(project.companions().len(), 2);
        signal(&kdev, how);
        ended(&mut kdev);
        until(&format!("{how}: companions"), || {
            project.companions().is_empty()
        });
        let running = || project.compose(&["ps", "-q", "api", "worker"]).out;
        until(&format!("{how}: {}", project.left()), || {
            running().is_empty()
        });
        if how == "-KILL" {
            // The same time to end as without kdev.
            let worker = format!("{}-worker-1", project.name);
            let code = lab::docker(&["inspect", "--format", "{{.State.ExitCode}}", &worker]);
            assert_eq!(code.unwrap().trim(), "4");
        }
        assert_eq!(folders(&kdev), [""; 0]);
        assert_eq!(project.compose(&["down", "-t", "0"]).code, 0);
        // Networks that companions still had go after those.
        until(&format!("{how}: something is left"), || {
            project.left().is_empty()
        });
    }
    // What cannot be started leaves nothing either, and says what is wrong as Compose does.
    let wrong = Project::new(&[("compose.yaml", "services: {web: {imagine: x}}\n")]);
    let done = finish(&mut wrong.kdev(&laptop, &[], &["up"]), b"");
    let plain = wrong.compose(&["up"]);
    assert!(plain.err.contains("imagine"), "{plain:?}");
    assert_eq!(done.code, plain.code, "{done:?}");
    assert!(done.err.contains(plain.err.trim()), "{done:?} {plain:?}");
    let missing = Project::new(&[(
        "compose.yaml",
        "services: {web: {image: kdev-lab/nowhere:1, pull_policy: never}}\n",
    )]);
    let done = finish(&mut missing.kdev(&laptop, &[], &["up"]), b"");
    assert!(
        done.code != 0 && done.err.contains("kdev-lab/nowhere:1"),
        "{done:?}"
    );
    assert_eq!(missing.companions(), [""; 0]);
}

#[test]
#[ignore = "needs the lab"]
fn the_project_is_printed_as_it_will_be() {
    let laptop = Laptop::new();
    let project = Project::new(&WHOLE);
    let mut kdev = project.kdev(&laptop, &["-q"], &["config", "--format", "json"]);
    let printed = finish(kdev.env("PROJECT", "x"), b"").ok();
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let services = &printed["services"];
    assert_eq!(services["job"]["network_mode"], "service:kdev-job");
    assert_eq!(services["kdev-store"]["ports"][0]["published"], "18121");
    assert_eq!(services["outsider"]["network_mode"], "host");
    assert_eq!(services["job"]["environment"]["LEFT"], "a$$b c");
    assert_eq!(project.left(), "");
}
