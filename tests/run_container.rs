//! Engines that are not at hand: a stand-in answers as they do. A real Docker is in `tests/real`.

#![cfg(all(unix, feature = "client"))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kdev::run::child::Child;
use kdev::run::container::{ContainerError, ContainerRun, Detected, Finding, Peers, Plan, detect};
use kdev::run::environment::{AllProxy, Credentials, Settings};
use serde_json::json;

const SECRET: &str = "s3cr3t-of-this-run";

/// A directory with an engine in it.
struct Engine {
    dir: PathBuf,
    name: &'static str,
}

impl Engine {
    fn new(name: &'static str, version: &str) -> Self {
        let unique: u64 = rand::random();
        let dir = std::env::temp_dir().join(format!("kdev-test-engine-{unique:016x}"));
        fs::create_dir(&dir).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake/engine");
        std::os::unix::fs::symlink(script, dir.join(name)).unwrap();
        let engine = Self { dir, name };
        engine.says("version", version)
    }

    fn docker(endpoint: &str, info: &serde_json::Value) -> Self {
        Self::new("docker", "Docker version 28.2.2, build e6534b4")
            .says("endpoint", endpoint)
            .says("info", &info.to_string())
    }

    fn podman(rootless: bool, remote: bool) -> Self {
        let info = json!({"host": {"security": {"rootless": rootless}, "serviceIsRemote": remote}});
        Self::new("podman", "podman version 5.4.2").says("info", &info.to_string())
    }

    fn says(self, file: &str, text: &str) -> Self {
        fs::write(self.dir.join(file), format!("{text}\n")).unwrap();
        self
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    /// `words` behind the engine's program.
    fn run(&self, words: &str) -> ContainerRun {
        let mut argv = vec![self.dir.join(self.name).into_os_string()];
        argv.extend(words.split(' ').map(OsString::from));
        match detect(&argv).unwrap() {
            Detected::Container(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    async fn plan(&self, words: &str) -> Result<Plan, ContainerError> {
        self.run(words).plan().await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        proxy: plan.proxy(
            4321,
            Credentials {
                user: "kdev".to_owned(),
                password: SECRET.to_owned(),
            },
        ),
        direct: Vec::new(),
        domain: "cluster.local".to_owned(),
        context: None,
        namespace: None,
        all_proxy: AllProxy::default(),
    }
}

const SOCK: &str = "unix:///var/run/docker.sock";

fn linux() -> serde_json::Value {
    json!({"OperatingSystem": "Debian GNU/Linux 12", "Name": "box", "SecurityOptions": ["name=seccomp"]})
}

fn bridge(subnet: &str, gateway: &str) -> String {
    json!([{"Name": "bridge", "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": subnet, "Gateway": gateway}]}}])
    .to_string()
}

#[tokio::test]
async fn a_virtual_machine_is_given_the_loopback_by_its_name() {
    let info = json!({"OperatingSystem": "Docker Desktop", "Name": "docker-desktop"});
    let engine = Engine::docker("unix:///home/u/.docker/desktop/docker.sock", &info);
    for words in ["run IMG", "run --network host IMG", "run --network dev IMG"] {
        let plan = engine.plan(words).await.unwrap();
        assert!(plan.listen.ip.is_loopback(), "{words}");
        assert_eq!(plan.advertised_host, "host.docker.internal", "{words}");
        assert_eq!(plan.peers, Peers::Password, "{words}");
        let vars = plan.variables(&settings(&plan));
        let url = format!("http://kdev:{SECRET}@host.docker.internal:4321");
        assert_eq!(vars.get("HTTP_PROXY"), Some(&*url));
        assert_eq!(vars.get("JAVA_TOOL_OPTIONS"), None);
        assert!(
            plan.notes.iter().any(|n| n.contains("Java")),
            "{:?}",
            plan.notes
        );
    }
    let none = engine.plan("run --net=none IMG").await.unwrap_err();
    assert!(matches!(none, ContainerError::NoNetwork), "{none}");
}

#[tokio::test]
async fn engines_elsewhere_are_refused_with_the_reason() {
    for endpoint in ["ssh://me@build.example", "tcp://192.0.2.7:2376"] {
        let engine = Engine::docker(endpoint, &linux());
        let error = engine.plan("run IMG").await.unwrap_err();
        assert!(matches!(error, ContainerError::Remote { .. }), "{error}");
        assert!(error.to_string().contains(endpoint), "{error}");
    }
    let engine = Engine::podman(true, true).says(
        "connections",
        r#"[{"Name": "far", "URI": "ssh://core@far.example:22/run/podman.sock", "Default": true}]"#,
    );
    let error = engine.plan("run IMG").await.unwrap_err();
    assert!(matches!(error, ContainerError::Remote { .. }), "{error}");
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_quoted() {
    let info = json!({"ServerErrors": ["Cannot connect to the Docker daemon. Is it running?"]});
    let engine = Engine::docker(SOCK, &info);
    let error = engine.plan("run IMG").await.unwrap_err().to_string();
    assert!(
        error.contains("Cannot connect to the Docker daemon"),
        "{error}"
    );
    let engine = Engine::new("docker", "Docker version 28.2.2, build e6534b4");
    let error = engine.plan("run IMG").await.unwrap_err().to_string();
    assert!(error.contains("no such thing"), "{error}");
}

#[tokio::test]
async fn a_bridge_that_is_not_on_this_machine_cannot_be_listened_on() {
    let network = bridge("198.51.100.0/24", "198.51.100.1");
    let engine = Engine::docker(SOCK, &linux()).says("network", &network);
    let plan = engine.plan("run IMG").await.unwrap();
    assert_eq!(plan.advertised_host, "198.51.100.1");
    let error = plan.listen.bind(0).unwrap_err().to_string();
    assert!(error.contains("198.51.100.1"), "{error}");
    assert!(error.contains("virtual machine"), "{error}");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn podmans_bridge_may_come_with_its_first_container() {
    let network = json!([{"name": "podman", "driver": "bridge",
        "subnets": [{"subnet": "198.51.100.0/24", "gateway": "198.51.100.1"}]}]);
    let engine = Engine::podman(false, false).says("network", &network.to_string());
    let plan = engine.plan("run IMG").await.unwrap();
    assert_eq!(plan.peers, Peers::Containers);
    let listener = plan.listen.bind(0).unwrap();
    assert_eq!(listener.local_addr().unwrap().ip(), plan.listen.ip);
}

#[tokio::test]
async fn rootless_engines_reach_the_machines_own_address() {
    let own = |plan: &Plan| {
        assert!(!plan.listen.ip.is_loopback());
        assert_eq!(plan.peers, Peers::ThisMachine(plan.listen.ip));
    };
    let podman = Engine::podman(true, false);
    for words in [
        "run IMG",
        "run --network pasta:--map-gw IMG",
        "run --pod p IMG",
    ] {
        let plan = podman.plan(words).await.unwrap();
        own(&plan);
        assert_eq!(plan.advertised_host, "host.containers.internal");
    }
    let plan = podman.plan("run --network host IMG").await.unwrap();
    assert!(plan.listen.ip.is_loopback());
    assert_eq!(plan.advertised_host, "127.0.0.1");

    let info = json!({"OperatingSystem": "Ubuntu", "SecurityOptions": ["name=rootless"]});
    let docker = Engine::docker("unix:///run/user/1000/docker.sock", &info);
    for words in ["run IMG", "run --network host IMG"] {
        let plan = docker.plan(words).await.unwrap();
        own(&plan);
        assert_eq!(plan.advertised_host, plan.listen.ip.to_string());
    }
}

/// What a container of `words` finds, and what the engine was told to start for that.
async fn probe(engine: &Engine, words: &str) -> (Finding, String) {
    let plan = engine.plan(words).await.unwrap();
    let listener = plan.listen.bind(0).unwrap();
    let finding = plan.probe(&listener, "abc", Duration::from_secs(10)).await;
    let log = engine.read("log");
    let started = log.lines().find(|line| line.contains("--entrypoint sh"));
    (finding, started.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_container_asks_on_the_users_network_and_by_the_users_names() {
    let engine = Engine::docker(SOCK, &linux())
        .says("network", &bridge("127.0.0.0/8", "127.0.0.1"))
        .says("image", "null");
    let words = "run --network name=dev,ip=127.0.0.9 --add-host a:1.2.3.4 IMG";
    let (finding, started) = probe(&engine, words).await;
    assert!(
        matches!(&finding, Finding::Reached { image, .. } if image == "IMG"),
        "{finding:?}"
    );
    let label =
        "--label dev.kdev.session=abc --network dev --add-host a:1.2.3.4 --entrypoint sh IMG";
    assert!(started.contains(label), "{started}");
    assert!(
        started.starts_with("run --rm --pull never --name kdev-probe-"),
        "{started}"
    );
}

#[tokio::test]
async fn podman_that_gives_no_way_here_is_told_what_helps() {
    let engine = Engine::podman(true, false)
        .says("image", "null")
        .says("probe", "refused");
    let (finding, started) = probe(&engine, "run --network pasta:-T,80 IMG").await;
    assert!(started.contains(" --network pasta:-T,80 "), "{started}");
    let Finding::Unreached(unreached) = finding else {
        panic!("{finding:?}");
    };
    let what = "on the network \"pasta:-T,80\" does not reach kdev at host.containers.internal:";
    assert!(unreached.what.contains(what), "{unreached}");
    for help in [
        "podman 5.3",
        "leave `--network pasta:-T,80` out",
        "`--network slirp4netns`",
    ] {
        assert!(unreached.help.contains(help), "{help}: {unreached}");
    }
    // The machine's own network needs no trial.
    let engine = Engine::podman(true, false).says("image", "null");
    let (finding, started) = probe(&engine, "run --network host IMG").await;
    assert!(matches!(finding, Finding::Untold(_)), "{finding:?}");
    assert_eq!(started, "");
}

#[tokio::test]
async fn neighbours_on_a_network_with_names_go_past_the_proxy() {
    let engine = Engine::docker(SOCK, &linux())
        .says("network", &bridge("172.18.0.0/16", "172.18.0.1"))
        .says("neighbours", "db\ncache,web/link");
    let plan = engine.plan("run --network dev IMG").await.unwrap();
    let vars = plan.variables(&settings(&plan));
    let no_proxy: Vec<&str> = vars.get("NO_PROXY").unwrap().split(',').collect();
    assert!(
        no_proxy.contains(&"db") && no_proxy.contains(&"cache"),
        "{no_proxy:?}"
    );
    assert!(
        plan.notes.iter().any(|n| n.contains("db, cache")),
        "{:?}",
        plan.notes
    );
    // The default bridge resolves no names.
    let plan = engine.plan("run IMG").await.unwrap();
    let vars = plan.variables(&settings(&plan));
    assert!(!vars.get("NO_PROXY").unwrap().contains("cache"));
}

#[tokio::test]
async fn a_program_named_docker_may_be_podman() {
    let info = json!({"host": {"security": {"rootless": true}}});
    let engine = Engine::new("docker", "podman version 4.9.3").says("info", &info.to_string());
    let plan = engine.plan("run IMG").await.unwrap();
    assert_eq!(plan.advertised_host, "host.containers.internal");
}

#[tokio::test]
async fn the_variables_go_by_a_descriptor_before_the_users_own_flags() {
    let engine = Engine::docker(SOCK, &linux())
        .says("network", &bridge("172.17.0.0/16", "172.17.0.1"))
        .says("image", r#"["PATH=/bin","JAVA_TOOL_OPTIONS=-Xmx1g"]"#);
    let config = engine.dir.to_str().unwrap();
    let words = format!(
        "--config {config} container run --rm -e A=B --name api --add-host x:1.2.3.4 IMG sh"
    );
    let plan = engine.plan(&words).await.unwrap();
    let vars = plan.variables(&settings(&plan));
    assert!(
        vars.get("JAVA_TOOL_OPTIONS")
            .unwrap()
            .starts_with("-Xmx1g -Dhttp")
    );
    let no_proxy: Vec<&str> = vars.get("NO_PROXY").unwrap().split(',').collect();
    for direct in [
        "localhost",
        "api",
        "x",
        "172.17.0.1",
        "host.docker.internal",
    ] {
        assert!(no_proxy.contains(&direct), "{direct}: {no_proxy:?}");
    }
    let (command, started) = plan.command("abc", &vars.set).unwrap();
    let mut child = Child::spawn(command).unwrap();
    assert_eq!(child.wait().await.unwrap(), 42);

    let log = engine.read("log");
    let line = log.lines().last().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..4], ["--config", config, "container", "run"]);
    assert_eq!(words[4], "--env-file");
    assert!(words[5].starts_with("/dev/fd/"), "{line}");
    assert_eq!(
        words[6..9],
        ["--label", "dev.kdev.session=abc", "--cidfile"]
    );
    assert!(
        line.ends_with(" --rm -e A=B --name api --add-host x:1.2.3.4 IMG sh"),
        "{line}"
    );
    let env = engine.read("env");
    assert!(
        env.contains(&format!(
            "HTTP_PROXY=http://kdev:{SECRET}@172.17.0.1:4321\n"
        )),
        "{env}"
    );
    for file in ["log", "ps", "own-env"] {
        assert!(!engine.read(file).contains(SECRET), "{file}");
    }
    let cidfile = PathBuf::from(words[9]);
    assert!(cidfile.parent().unwrap().exists());
    drop(started);
    assert!(
        !cidfile.parent().unwrap().exists(),
        "the directory stays behind"
    );
}

#[tokio::test]
async fn proxies_in_dockers_own_configuration_are_outdone_by_name() {
    let engine = Engine::docker(SOCK, &linux())
        .says("network", &bridge("172.17.0.0/16", "172.17.0.1"))
        .says(
            "config.json",
            r#"{"proxies": {"default": {"httpProxy": "http://corp:1", "noProxy": "git.corp,.svc"}}}"#,
        );
    let config = engine.dir.to_str().unwrap();
    let plan = engine
        .plan(&format!("--config={config} run -e HTTP_PROXY=mine IMG"))
        .await
        .unwrap();
    let vars = plan.variables(&settings(&plan));
    assert!(vars.get("NO_PROXY").unwrap().ends_with(",git.corp"));
    assert_eq!(vars.dropped_no_proxy, [".svc"]);
    let (command, _started) = plan.command("abc", &vars.set).unwrap();
    assert_eq!(Child::spawn(command).unwrap().wait().await.unwrap(), 42);
    let log = engine.read("log");
    let line = log.lines().last().unwrap();
    assert!(line.contains(" --env http_proxy --env "), "{line}");
    assert!(line.ends_with(" -e HTTP_PROXY=mine IMG"), "{line}");
    assert!(!line.contains(SECRET));
    assert!(
        engine.read("own-env").contains(SECRET),
        "the client reads the values from its own"
    );
}

#[test]
fn what_is_a_container_and_what_is_refused() {
    let of = |line: &str| {
        let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match detect(&argv) {
            Ok(Detected::Container(run)) if run.detached() => "detached".to_owned(),
            Ok(Detected::Container(_)) => "container".to_owned(),
            Ok(Detected::Command { note }) => note.unwrap_or_default(),
            Ok(Detected::Compose(run)) if run.prints() => "printed".to_owned(),
            Ok(Detected::Compose(_)) => "project".to_owned(),
            Ok(Detected::Plain) => "as it is".to_owned(),
            Err(error) => format!("refused: {error}"),
        }
    };
    for (line, what) in [
        ("docker run IMG", "container"),
        ("/usr/bin/docker run -d IMG", "detached"),
        ("docker.exe run IMG", "container"),
        ("podman-remote run IMG", "container"),
        ("curl http://docker/run", ""),
        ("docker ps", ""),
        ("mydocker run IMG", ""),
        ("docker compose up", "project"),
        ("docker --context x compose -f a.yaml up -d web", "project"),
        ("docker-compose -p shop up", "project"),
        ("podman compose up", "project"),
        ("docker compose config --format json", "printed"),
        ("docker compose run --rm web sh", "project"),
        ("docker compose run", "as it is"),
        ("docker compose", "as it is"),
        ("docker compose up --help", "as it is"),
        ("docker compose --dry-run up", "as it is"),
        ("docker compose logs -f web", "as it is"),
        ("docker compose exec web sh", "as it is"),
        ("docker compose down", "as it is"),
        ("docker-compose restart web", "as it is"),
        ("sudo ls", ""),
        ("sudo docker ps", ""),
    ] {
        assert_eq!(of(line), what, "{line}");
    }
    for (line, words) in [
        (
            "docker create IMG",
            "refused: `docker create` is not supported",
        ),
        (
            "docker compose create",
            "refused: `docker compose create` is not supported",
        ),
        ("docker compose up --no-start", "would start later"),
        (
            "docker compose up --always-recreate-deps",
            "--force-recreate makes all services anew",
        ),
        (
            "docker compose up --no-recreate",
            "a container that stays as it is has no network of kdev's",
        ),
        ("docker compose -f - up", "write it to a file"),
        (
            "docker compose run -d web",
            "start the service with `up -d`",
        ),
        ("docker-compose watch", "use `up --watch`"),
        ("nerdctl compose up", "use `docker compose`"),
        ("podman-compose up", "use `podman compose`"),
        ("sudo docker compose up", "sudo kdev run -- docker"),
        ("sudo docker run IMG", "sudo kdev run -- docker run"),
        (
            "sudo -E podman --log-level x run IMG",
            "refused: `sudo podman run`",
        ),
        (
            "docker exec c sh",
            "does not put its container into the cluster",
        ),
        ("docker build .", "does not get kdev's variables"),
    ] {
        let said = of(line);
        assert!(said.contains(words), "{line}: {said}");
    }
    assert!(matches!(detect(&[]), Ok(Detected::Command { note: None })));
}
