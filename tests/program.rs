//! The program as a whole against the simulated cluster.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use kdev_sim::{Options, Rule, SimCluster, TurnAway, User, shop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Longer than any of these commands takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    cluster: SimCluster,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn set_up(options: Options) -> Self {
        let cluster = SimCluster::start(options).await.unwrap();
        shop::furnish(&cluster);
        let folder = tempfile::tempdir().unwrap();
        for user in ["dev", "viewer"] {
            let path = folder.path().join(user);
            cluster.write_kubeconfig(&path, user, "shop").unwrap();
        }
        Self { cluster, folder }
    }

    fn kdev(&self, user: &str, args: &[&str]) -> Command {
        let kubeconfig: PathBuf = self.folder.path().join(user);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kdev"));
        command
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("XDG_CACHE_HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.folder.path())
            // What is said of it stands in tests/capture.
            .env("KDEV_CAPTURE", "off")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, user: &str, args: &[&str]) -> Output {
        let output = self.kdev(user, args).output();
        tokio::time::timeout(PATIENCE, output)
            .await
            .expect("kdev hangs")
            .unwrap()
    }
}

/// The first line of a running command, and the command.
async fn ready(mut command: Command) -> (String, Child) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .await;
    read.unwrap();
    assert!(!line.is_empty(), "kdev ended before it was ready");
    (line, child)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_the_main_jobs_and_ends() {
    let began = Instant::now();
    let demo = Command::new(env!("CARGO_BIN_EXE_kdev"))
        .arg("demo")
        .output();
    let output = tokio::time::timeout(PATIENCE, demo)
        .await
        .expect("the demo hangs")
        .unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    for part in [
        "hello from web-",
        "+PONG",
        "2 pods ready",
        "oats",
        "pods/portforward",
        "kdev doctor",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
    // Its pods take loopback addresses that only Linux has.
    if cfg!(target_os = "linux") {
        assert!(shown.contains("hello from this laptop"), "{shown}");
        assert!(shown.contains("has its own pods again"), "{shown}");
    }
    println!("the demo took {:?}", began.elapsed());
}

/// The port of an app that answers all requests in the same way.
async fn app_of_mine() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's runtime.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let _ = caller.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmine";
            let _ = caller.write_all(answer).await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_demo_that_stays_says_to_try_works() {
    let kdev = env!("CARGO_BIN_EXE_kdev");
    let mut demo = Command::new(kdev)
        .args(["demo", "--keep"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut variables = Vec::new();
    let told = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let export = line.strip_prefix("  export ");
            variables.extend(
                export
                    .and_then(|pair| pair.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
            if line.contains("kubectl get") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("the demo hangs");
    assert!(!variables.is_empty());
    let fetched = |url: &'static str| {
        let tried = Command::new(kdev)
            .args(["run", "--", kdev, "demo", "--fetch", url])
            .envs(variables.iter().cloned())
            .output();
        async move {
            let tried = tokio::time::timeout(PATIENCE, tried).await;
            let tried = tried.unwrap().unwrap();
            format!("{}{}", text(&tried.stdout), text(&tried.stderr))
        }
    };
    for url in ["http://web.shop/", "http://cart:8080/"] {
        let shown = fetched(url).await;
        assert!(shown.starts_with("hello from "), "{url}: {shown}");
    }
    // Its pods take loopback addresses that only Linux has.
    if cfg!(target_os = "linux") {
        let before = fetched("http://orders/").await;
        let to = app_of_mine().await.to_string();
        let mut command = Command::new(kdev);
        command
            .args(["intercept", "orders", "--to", &to])
            .envs(variables.iter().cloned())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut live = command.spawn().unwrap();
        let mut told = BufReader::new(live.stdout.take().unwrap()).lines();
        loop {
            let line = tokio::time::timeout(PATIENCE, told.next_line()).await;
            let line = line.expect("it hangs").unwrap();
            if line.expect("it ended").starts_with("Ctrl-C") {
                break;
            }
        }
        assert_eq!(fetched("http://orders/").await, "mine");
        let pid = Pid::from_raw(live.id().unwrap().try_into().unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let ended = tokio::time::timeout(PATIENCE, live.wait()).await;
        assert!(ended.expect("it does not end").unwrap().success());
        assert_eq!(fetched("http://orders/").await, before);
    }
    let pid = Pid::from_raw(demo.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, demo.wait()).await;
    assert!(ended.expect("the demo does not end").unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_does_what_it_can_with_few_open_files() {
    let demo = Command::new("sh")
        .args(["-c", "ulimit -n 1024 && exec \"$0\" demo"])
        .arg(env!("CARGO_BIN_EXE_kdev"))
        .output();
    let output = tokio::time::timeout(PATIENCE, demo).await;
    let output = output.expect("the demo hangs").unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    assert!(shown.contains("left out: it takes"), "{shown}");
    assert!(shown.contains("oats"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_childs_or_say_who_failed() {
    let stage = Stage::set_up(Options::default()).await;
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["no-such-command-here"], 127),
        (&["/"], 126),
        (&["docker", "create", "busybox"], 125),
    ] {
        let output = stage
            .output("dev", &[&["run", "--"], command].concat())
            .await;
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {shown}");
    }
    let nowhere = ["--kubeconfig", "/no/such/file", "run", "--", "true"];
    let output = stage.output("dev", &nowhere).await;
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("/no/such/file"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        stage
            .output("dev", &["forward", "web:"])
            .await
            .status
            .code(),
        Some(2)
    );
    // It is for projects.
    let output = stage
        .output("dev", &["run", "--only", "web", "--", "true"])
        .await;
    let shown = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{shown}");
    assert!(shown.contains("--only names services"), "{shown}");
    // A flag that there is not is no command.
    let output = stage
        .output("dev", &["run", "--namespce", "x", "--", "true"])
        .await;
    let shown = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{shown}");
    assert!(shown.contains("'--namespace'"), "{shown}");
    assert_eq!(
        stage
            .output("dev", &["run", "--via", "pigeon", "x"])
            .await
            .status
            .code(),
        Some(125)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_is_said_before_the_command_starts() {
    let stage = Stage::set_up(Options::default()).await;
    stage.cluster.stop_api().await;
    let output = stage.output("dev", &["run", "--", "echo", "started"]).await;
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("cannot reach the API server"));
}

fn away(path: &str, count: u64) -> TurnAway {
    TurnAway {
        code: 429,
        retry_after: Some(1),
        path: path.to_owned(),
        count,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_api_server_is_waited_for_and_that_is_said_once() {
    let stage = Stage::set_up(Options::default()).await;
    // One second is nothing to speak of.
    stage.cluster.faults().turn_away(away("/version", 1));
    let script = "curl -s -o /dev/null http://web.shop/; echo started";
    let run = &["run", "--own-session", "--", "sh", "-c", script];
    let output = stage.output("dev", run).await;
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
    for path in ["/version", "/services", "/pods"] {
        stage.cluster.faults().turn_away(away(path, 3));
    }
    let output = stage.output("dev", run).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(text(&output.stdout), "started\n");
    assert_eq!(said.matches("asks to wait 1 s (429").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_of_a_session_wait_for_a_busy_api_server() {
    let stage = Stage::set_up(Options::default()).await;
    let (line, _child) = ready(stage.kdev("dev", &["connect", "--json"])).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let proxy: SocketAddr = line["proxy"].as_str().unwrap().parse().unwrap();
    // What carries the dial alone: other requests of the session would take their share.
    stage.cluster.faults().turn_away(away("/portforward", 3));
    let began = Instant::now();
    let answer = through(
        proxy,
        "web.shop",
        80,
        b"GET / HTTP/1.1\r\nHost: web\r\n\r\n",
    );
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impersonation_for_some_requests_only_is_enough() {
    let stage = Stage::set_up(Options::default()).await;
    let identity = Rule::new(&["impersonate:user-info"], &["users"])
        .groups(&["authentication.k8s.io"])
        .names(&["dev"]);
    let mut actor = User::new("actor").rule(identity);
    for (verb, resource) in [
        ("list", "pods"),
        ("get", "services"),
        ("create", "pods/portforward"),
    ] {
        let verb = format!("impersonate-on:user-info:{verb}");
        actor = actor.rule(Rule::new(&[&verb], &[resource]).namespace("shop"));
    }
    stage.cluster.add_user(actor);
    let path = stage.folder.path().join("actor");
    stage
        .cluster
        .write_kubeconfig(&path, "actor", "shop")
        .unwrap();
    let (line, _child) = ready(stage.kdev("actor", &["--as", "dev", "connect", "--json"])).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let proxy: SocketAddr = line["proxy"].as_str().unwrap().parse().unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    let answer = through(proxy, "web.shop", 80, request).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Who may act as nobody learns so before the command starts.
    let run = [
        "--as",
        "viewer",
        "run",
        "--own-session",
        "--",
        "echo",
        "started",
    ];
    let output = stage.output("actor", &run).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("cannot impersonate"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_systems_store_is_enough() {
    let stage = Stage::set_up(Options::default()).await;
    let config = stage.cluster.kubeconfig("dev", "shop");
    let named = |line: &&str| !line.contains("certificate-authority-data");
    let bare: Vec<&str> = config.lines().filter(named).collect();
    std::fs::write(stage.folder.path().join("bare"), bare.join("\n")).unwrap();

    let ours = stage.folder.path().join("ours.pem");
    std::fs::write(&ours, stage.cluster.ca_pem()).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap();
    let theirs = stage.folder.path().join("theirs.pem");
    std::fs::write(&theirs, stranger.cert.pem()).unwrap();

    for (store, code) in [(&ours, 0), (&theirs, 125)] {
        let mut kdev = stage.kdev("bare", &["run", "--", "true"]);
        kdev.env("SSL_CERT_FILE", store).env_remove("SSL_CERT_DIR");
        let output = tokio::time::timeout(PATIENCE, kdev.output()).await;
        let output = output.expect("kdev hangs").unwrap();
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        if code != 0 {
            let authority = "signed by \"kdev simulated cluster\", which is no authority that this machine trusts";
            for part in [authority, "SSL_CERT_FILE"] {
                assert!(shown.contains(part), "{part:?} is missing in: {shown}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_ports_show_up_in_status_and_end_with_the_signal() {
    let stage = Stage::set_up(Options::default()).await;
    let (line, mut child) = ready(stage.kdev("dev", &["forward", "redis:6379=0", "--json"])).await;
    let port: serde_json::Value = serde_json::from_str(&line).unwrap();
    let local: SocketAddr = port["ports"][0]["local"].as_str().unwrap().parse().unwrap();
    let mut redis = TcpStream::connect(local).await.unwrap();
    redis.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    redis.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");

    let output = stage.output("dev", &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let session = &status[0];
    assert_eq!(session["command"], "forward");
    assert_eq!(session["listening"][0]["target"], "redis:6379");
    assert_eq!(session["streams"], 1);
    assert_eq!(session["bytes_sent"], 6);
    assert_eq!(session["bytes_received"], 7);
    assert!(session["transport"].as_str().unwrap().contains("WebSocket"));

    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let output = stage.output("dev", &["status", "--json"]).await;
    assert_eq!(text(&output.stdout).trim(), "[]");
}

/// Connections that a port of `kdev forward` gets, each of which has had an answer.
async fn answered(local: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut redis = TcpStream::connect(local).await.unwrap();
        redis.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        redis.read_exact(&mut answer).await.unwrap();
        all.push(redis);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blip_is_said_once_and_not_in_the_words_of_a_library() {
    let stage = Stage::set_up(Options::default()).await;
    let (line, child) = ready(stage.kdev("dev", &["forward", "redis:6379=0", "--json"])).await;
    let port: serde_json::Value = serde_json::from_str(&line).unwrap();
    let local: SocketAddr = port["ports"][0]["local"].as_str().unwrap().parse().unwrap();
    let mut open = answered(local, 9).await;
    stage.cluster.drop_connections();
    for redis in &mut open {
        // It ends one way or the other.
        let _ = redis.read(&mut [0; 16]).await;
    }
    // What was cut is made anew for those that come later.
    answered(local, 1).await;
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let said = text(&output.unwrap().unwrap().stderr);
    println!("{said}");
    let words = ["rustls", "docs.rs", "close_notify"];
    assert!(!words.iter().any(|word| said.contains(word)), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// What a SOCKS5 proxy at `proxy` gets for `request` to `host`; an error's text when it is cut.
async fn through(
    proxy: SocketAddr,
    host: &str,
    port: u16,
    request: &[u8],
) -> Result<String, String> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let mut hello = vec![5, 1, 0, 5, 1, 0, 3, host.len() as u8];
    hello.extend_from_slice(host.as_bytes());
    hello.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&hello).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    stream
        .read_exact(&mut answer)
        .await
        .map_err(|e| e.to_string())?;
    if answer[3] != 0 {
        return Err(format!("reply {}", answer[3]));
    }
    let mut body = vec![0; 64];
    match stream.read(&mut body).await {
        Ok(n) => Ok(text(&body[..n])),
        Err(e) => Err(e.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_dials_with_bytes_sent_ahead_leave_later_ones_alone() {
    for options in [Options::default(), Options::old()] {
        let stage = Stage::set_up(options).await;
        // The Service's port leads to one that nobody listens on, in the pod of another that works.
        stage.cluster.add_service(
            kdev_sim::Service::new("shop", "shut")
                .selector("app", "web")
                .port("x", 81, 1081),
        );
        let log = stage.folder.path().join("log");
        let mut command = stage.kdev("dev", &["connect", "--json"]);
        command.env("RUST_LOG", "kdev=debug");
        command.stderr(std::fs::File::create(&log).unwrap());
        let (line, _child) = ready(command).await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let proxy: SocketAddr = line["proxy"].as_str().unwrap().parse().unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        let hangs = |what: &str, round| -> ! {
            let log = std::fs::read_to_string(&log).unwrap();
            panic!("a {what} dial hangs in round {round}:\n{log}");
        };
        for round in 0..10 {
            for _ in 0..3 {
                let refused = through(proxy, "shut.shop", 81, request);
                let refused = tokio::time::timeout(PATIENCE, refused).await;
                let refused = refused.unwrap_or_else(|_| hangs("refused", round));
                assert!(refused.is_err(), "{refused:?}");
            }
            for _ in 0..3 {
                let good = through(proxy, "web.shop", 80, request);
                let good = tokio::time::timeout(Duration::from_secs(10), good).await;
                let good = good.unwrap_or_else(|_| hangs("good", round));
                assert!(good.unwrap().starts_with("HTTP/1.1 200"));
            }
        }
    }
}

/// Asks for each of `urls` several times, and says nothing itself.
fn asking(urls: &[&str]) -> String {
    let ask = urls
        .iter()
        .map(|url| format!("curl -s -o /dev/null -m 30 {url}; "));
    format!("for n in 1 2 3; do {} done; true", ask.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_dial_failed_is_said_once_by_all_who_use_the_session() {
    let stage = Stage::set_up(Options::default()).await;
    stage.cluster.add_service(
        kdev_sim::Service::new("shop", "shut")
            .selector("app", "web")
            .port("x", 81, 1081),
    );
    let script = asking(&[
        "http://shut.shop:81/",
        "http://drafts.shop/",
        "http://wbe.shop.svc/",
        "http://web.shop/",
    ]);
    let reasons = [
        "shut.shop:81 refused the connection: nothing listens on that port",
        "Service drafts in namespace shop has no ready pod",
        "wbe.shop.svc:80: Service wbe in namespace shop was not found; did you mean web?",
    ];
    let told = |said: &str| {
        for reason in reasons {
            assert_eq!(said.matches(reason).count(), 1, "{reason}: {said}");
        }
        assert_eq!(said.lines().count(), reasons.len(), "{said}");
        assert!(!said.contains("kdev::"), "{said}");
    };
    let run = ["run", "--own-session", "--", "sh", "-c", &script];
    let output = stage.output("dev", &run).await;
    assert_eq!(output.status.code(), Some(0));
    told(&text(&output.stderr));

    // A session that is shared says it, and so does the command that uses it.
    let (_, connect) = ready(stage.kdev("dev", &["connect", "--json"])).await;
    let output = stage
        .output("dev", &["run", "--", "sh", "-c", &script])
        .await;
    told(&text(&output.stderr));
    let pid = Pid::from_raw(connect.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let output = tokio::time::timeout(PATIENCE, connect.wait_with_output()).await;
    told(&text(&output.unwrap().unwrap().stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_goes_past_kdev_is_told_once_unless_quiet() {
    let stage = Stage::set_up(Options::default()).await;
    let past = "`sh` made no connection through kdev";
    let through = "curl -s -o /dev/null http://web.shop/";
    let said = async |flags: &[&str], script: &str| {
        let run = [&["run"], flags, &["--", "sh", "-c", script]].concat();
        text(&stage.output("dev", &run).await.stderr)
    };
    let shared = {
        let (_, _connect) = ready(stage.kdev("dev", &["connect", "--json"])).await;
        [said(&[], "true").await, said(&[], through).await]
    };
    let own = [
        said(&["--own-session"], "true").await,
        said(&["--own-session"], through).await,
    ];
    for [without, with] in [shared, own] {
        assert_eq!(without.matches(past).count(), 1, "{without}");
        assert!(without.contains("kdev forward SERVICE:PORT"), "{without}");
        assert_eq!(without.lines().count(), 1, "{without}");
        assert_eq!(with, "");
    }
    let quiet = ["--own-session", "--quiet"];
    assert_eq!(said(&quiet, "true").await, "");
    assert_eq!(
        said(&quiet, "curl -s http://wbe.shop.svc/ >/dev/null").await,
        ""
    );
    // What did not start needs no advice about proxies.
    let nothing = said(&["--own-session"], "exec /no/such/program").await;
    assert!(!nothing.contains(past), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_ends_with_its_command_and_goes_on_without_a_terminal() {
    let stage = Stage::set_up(Options::default()).await;
    // With a connection to say goodbye on; the command notes when it is done.
    let script = "curl -s -o /dev/null http://web.shop/; date +%s%N";
    let run = ["run", "--own-session", "--", "sh", "-c", script];
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let output = stage.output("dev", &run).await;
        let ended = std::time::UNIX_EPOCH.elapsed().unwrap();
        let done: u64 = text(&output.stdout).trim().parse().unwrap();
        fastest = fastest.min(ended.saturating_sub(Duration::from_nanos(done)));
    }
    println!("kdev ended {fastest:?} after its command");
    assert!(fastest < Duration::from_millis(150), "{fastest:?}");

    // As `nohup` starts it.
    let mut command = Command::new("sh");
    let kdev = stage.kdev("dev", &["connect", "--json"]);
    command
        .args(["-c", "trap '' HUP; exec \"$0\" connect --json"])
        .arg(env!("CARGO_BIN_EXE_kdev"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    for (name, value) in kdev.as_std().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let (_, mut connect) = ready(command).await;
    let pid = Pid::from_raw(connect.id().unwrap().try_into().unwrap());
    let signal = |signal| kill(pid, signal).unwrap();
    signal(Signal::SIGHUP);
    let ended = tokio::time::timeout(Duration::from_secs(1), connect.wait()).await;
    assert!(ended.is_err(), "{ended:?}");
    signal(Signal::SIGINT);
    let ended = tokio::time::timeout(PATIENCE, connect.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_is_a_line_with_v() {
    let stage = Stage::set_up(Options::default()).await;
    let script = asking(&["http://web.shop/", "http://wbe.shop.svc/"]);
    let run = ["run", "-v", "--own-session", "--", "sh", "-c", &script];
    let said = text(&stage.output("dev", &run).await.stderr);
    let of = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    // The proxy keeps the connection for the next request.
    assert_eq!(of("web.shop:80 → pod web-"), 1, "{said}");
    assert_eq!(of(" (direct), "), 1, "{said}");
    assert_eq!(of("wbe in namespace shop was not found"), 3, "{said}");
    assert!(!said.contains("kdev::"), "{said}");
    let run = ["run", "-vv", "--own-session", "--", "sh", "-c", &script];
    let said = text(&stage.output("dev", &run).await.stderr);
    assert!(said.contains("kdev::app::connections"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_found_comes_with_the_reason() {
    let stage = Stage::set_up(Options::default()).await;
    for namespace in ["shop", "other"] {
        let one = kdev_sim::Service::new(namespace, &format!("only-{namespace}"));
        stage.cluster.add_service(one.port("", 80, 80));
    }
    // `lead` sees all namespaces, `dev` one.
    let all = Rule::new(
        &["get", "list", "watch"],
        &["services", "pods", "namespaces", "endpointslices"],
    );
    stage.cluster.add_user(User::new("lead").rule(all));
    let path = stage.folder.path().join("lead");
    stage
        .cluster
        .write_kubeconfig(&path, "lead", "shop")
        .unwrap();
    for (user, name, says) in [
        ("lead", "wbe:80", "did you mean web?"),
        ("lead", "web.shp:80", "did you mean web.shop?"),
        (
            "lead",
            "web.shp.svc:80",
            "namespace shp does not exist; did you mean web.shop?",
        ),
        ("lead", "only-other:80", "did you mean only-other.other?"),
        (
            "lead",
            "only-other.shop.svc:80",
            "did you mean only-other.other?",
        ),
        ("dev", "wbe.shop:80", "did you mean web?"),
        (
            "dev",
            "only-other.other:80",
            "you may not get services in namespace other",
        ),
        (
            "dev",
            "only-other.other.svc:80",
            "not allowed to get services in namespace other",
        ),
    ] {
        let output = stage.output(user, &["resolve", name]).await;
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(says), "{user} {name}: {said}");
        let port = format!("{name}=0");
        let output = stage.output(user, &["forward", &port]).await;
        let said = text(&output.stderr).replace("\n  fix: ", "; ");
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(says), "{user} forward {name}: {said}");
    }
    // What is out there and merely down is none of the cluster's.
    let output = stage
        .output("lead", &["resolve", "no-such-host.invalid:80"])
        .await;
    let said = text(&output.stdout);
    assert!(
        !said.contains("did you mean") && !said.contains("may not"),
        "{said}"
    );
    let output = stage.output("dev", &["forward", "web:htpp=0"]).await;
    let said = text(&output.stderr);
    assert!(said.contains("only 80 (http)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_no_panic() {
    let stage = Stage::set_up(Options::default()).await;
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    // The note that the command does not exist goes nowhere; its exit code says it too.
    let mut command = stage.kdev("dev", &["run", "--", "no-such-command-here"]);
    assert_eq!(
        command.stderr(full()).status().await.unwrap().code(),
        Some(127)
    );
    for args in [
        &["status"][..],
        &["connect"],
        &["forward", "web:80=0"],
        &["doctor", "--json"],
    ] {
        let mut command = stage.kdev("dev", args);
        // Not `output()`, which would put a pipe in the place of the full disk.
        let child = command.stdout(full()).spawn().unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{args:?} hangs")).unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains("cannot write") && !said.contains("panicked"),
            "{args:?}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_uses_asks_nothing() {
    let stage = Stage::set_up(Options::default()).await;
    let (_, _child) = ready(stage.kdev("dev", &["connect", "--json"])).await;
    let asked = || stage.cluster.counts().requests;
    let begun = Instant::now();
    let mut before = asked();
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = asked();
        if now == before {
            break;
        }
        before = now;
        assert!(begun.elapsed() < PATIENCE, "it never falls silent");
    }
    // More than kdev waits between two looks at a relay that does not come up.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(asked(), before);
    // Nor do changes of other objects make it look for a relay more than once a minute.
    let looks = || stage.cluster.counts().of("get", "deployments");
    let before = looks();
    for n in 0..4 {
        let one = kdev_sim::Service::new("shop", &format!("new-{n}")).port("", 80, 80);
        stage.cluster.add_service(one);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(looks(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_session_is_still_shown() {
    let stage = Stage::set_up(Options::default()).await;
    let (_, child) = ready(stage.kdev("dev", &["connect", "--json"])).await;
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let output = stage.output("dev", &["status"]).await;
    let shown = text(&output.stdout);
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(
        shown.contains(&pid.to_string()) && shown.contains("does not answer"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_can_lead_nowhere_is_refused_at_the_start() {
    let stage = Stage::set_up(Options::default()).await;
    for name in [
        "nosuch:80=0",
        "github.com:80=0",
        "web.nowhere.svc:80=0",
        "web:nosuch=0",
    ] {
        let output = stage.output("dev", &["forward", name]).await;
        assert_eq!(output.status.code(), Some(1), "{name}");
    }
    // One whose pods may come is said and served.
    let (line, mut child) = ready(stage.kdev("dev", &["forward", "drafts:80=0", "--json"])).await;
    assert!(line.contains("drafts:80"), "{line}");
    let mut said = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    errors.read_line(&mut said).await.unwrap();
    assert!(said.contains("ready"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn resolve_tells_where_each_form_of_a_name_leads() {
    let stage = Stage::set_up(Options::default()).await;
    let alias = kdev_sim::Service::new("shop", "front");
    stage
        .cluster
        .add_service(alias.external_name("web.shop.svc.cluster.local"));
    let circle = kdev_sim::Service::new("shop", "circle");
    stage
        .cluster
        .add_service(circle.external_name("circle.shop.svc.cluster.local"));
    for (name, code, decision, says) in [
        ("web", 0, "cluster", "Service web in namespace shop: there"),
        ("web.shop.svc.corp.example:80", 0, "cluster", "web-1"),
        ("peers.shop.:8080", 0, "cluster", "headless"),
        ("web:http", 0, "cluster", "web:80"),
        (
            "front:80",
            0,
            "cluster",
            "is an alias of web.shop.svc.cluster.local",
        ),
        ("circle:80", 1, "failed", "its aliases lead nowhere"),
        ("drafts:80", 1, "failed", "has no ready pod"),
        ("wbe.shop.svc:80", 1, "failed", "did you mean web?"),
        ("_http._tcp.web:80", 1, "failed", "dial web.shop:80 instead"),
        (
            "no-such-host.invalid:80",
            1,
            "laptop",
            "nor a name that this machine resolves",
        ),
        ("127.0.0.1:80", 0, "laptop", "127.0.0.1"),
    ] {
        let output = stage.output("dev", &["resolve", name, "--json"]).await;
        let said = text(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name}: {said}{}",
            text(&output.stderr)
        );
        let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(answer["decision"], decision, "{name}: {said}");
        assert!(said.contains(says), "{name}: {said}");
    }
    let rules = [
        "resolve",
        "--never-proxy",
        "web.shop",
        "--also-proxy",
        ".corp.example",
    ];
    for (name, says) in [
        ("web.shop:80", "never-proxy web.shop decides"),
        ("db.corp.example:80", "a relay in the cluster reaches it"),
    ] {
        let output = stage.output("dev", &[&rules[..], &[name]].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            text(&output.stdout).contains(says),
            "{}",
            text(&output.stdout)
        );
    }
}
