//! `kdev run` with commands and containers, and what an app that knows no proxy does: all of it
//! with an account that may do no more than kdev needs.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::app::Way;
use crate::lab::{self, Container, Network, TOOLS};
use crate::program::{Running, finish, kdev, run};

/// `docker run` with what every container here needs; the image never comes from a registry.
const DOCKER_RUN: [&str; 5] = ["docker", "run", "--rm", "--pull", "never"];

fn docker_run<'a>(flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&DOCKER_RUN, flags, &[TOOLS], command].concat()
}

const CURL: [&str; 4] = ["curl", "-sS", "--max-time", "20"];
const COUNT: &str = "select count(*) from orders";

fn curl<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&CURL, args].concat()
}

#[test]
#[ignore = "needs the lab"]
fn a_command_reaches_services() {
    let pods = lab::ready_pods("web");
    // The wall stands: without kdev there is no answer.
    let direct = finish(
        Command::new("curl").args(["-s", "--max-time", "3", "http://web.shop/"]),
        b"",
    );
    assert_ne!(direct.code, 0, "{direct:?}");
    for account in ["dev", "admin"] {
        for url in [
            "http://web.shop/",
            "http://web/",
            "http://web.shop.svc/",
            "http://web.shop.svc.cluster.local./",
        ] {
            let pod = run(account, &curl(&[url])).ok();
            assert!(pods.contains(&pod.trim().to_owned()), "{url}: {pod}");
        }
    }
    // What takes SOCKS from the environment, whatever the protocol.
    let script = "exec curl -sS --max-time 20 --socks5-hostname $KDEV_SOCKS http://web.shop/";
    let pod = run("dev", &["sh", "-c", script]).ok();
    assert!(pods.contains(&pod.trim().to_owned()), "{pod}");
}

#[test]
#[ignore = "needs the lab"]
fn a_container_reaches_services() {
    let pods = lab::ready_pods("web");
    let network = Network::create();
    let direct = [
        "run", "--rm", "--pull", "never", TOOLS, "curl", "-s", "-m", "3",
    ];
    lab::docker(&[&direct[..], &["http://web.shop/"]].concat()).unwrap_err();
    for flags in [
        vec![],
        vec!["--network", &network.0],
        vec!["--network", "host"],
    ] {
        for tool in [
            vec!["curl", "-sS", "-m", "20", "http://web.shop/"],
            vec!["busybox", "wget", "-q", "-O", "-", "http://web.shop/"],
        ] {
            let pod = run("dev", &docker_run(&flags, &tool)).ok();
            let known = pods.contains(&pod.trim().to_owned());
            assert!(known, "{flags:?} {tool:?}: {pod}");
        }
    }
}

#[test]
#[ignore = "needs the lab"]
fn a_detached_container_keeps_its_way() {
    let pods = lab::ready_pods("web");
    let container = Container::name("detached");
    // The pause is there so that the engine's own command has ended long before.
    let script = "sleep 2; curl -sS -m 20 http://web.shop/; exit 7";
    let flags = [
        "docker",
        "run",
        "-d",
        "--pull",
        "never",
        "--name",
        &container.0,
        TOOLS,
    ];
    let done = run("dev", &[&flags[..], &["sh", "-c", script]].concat());
    assert_eq!(done.code, 7, "{done:?}");
    let id = done.out.trim();
    assert_eq!(id.len(), 64, "{id}");
    let pod = lab::docker(&["logs", &container.0]).unwrap();
    assert!(pods.contains(&pod.trim().to_owned()), "{pod}");
}

#[test]
#[ignore = "needs the lab"]
fn databases_answer_through_socks_and_through_forward() {
    let proxy = Running::connect("dev");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let way = Way::Socks5(proxy.proxy());
    // psql and redis-cli know no proxy: what stands between is a helper as users have it.
    let pg = runtime.block_on(relay(way, "pg.shop:5432"));
    let redis = runtime.block_on(relay(way, "redis.shop:6379"));
    databases(pg, redis, "SOCKS5");
    proxy.stop();

    let ports = Running::forward("dev", &["pg.shop:5432", "redis:6379"]);
    databases(ports.port(0), ports.port(1), "forward");
    ports.stop();

    // And socat's SOCKS4a, in a container, which sends no password.
    let script = r#"
        host=${KDEV_SOCKS%:*} port=${KDEV_SOCKS##*:}
        socat UNIX-LISTEN:/tmp/.s.PGSQL.5432,fork SOCKS4A:$host:pg.shop:5432,socksport=$port &
        socat UNIX-LISTEN:/tmp/redis,fork SOCKS4A:$host:redis.shop:6379,socksport=$port &
        until [ -S /tmp/.s.PGSQL.5432 ] && [ -S /tmp/redis ]; do sleep 0.1; done
        PGPASSWORD=shop psql -h /tmp -U shop -At -c 'select count(*) from orders'
        redis-cli -s /tmp/redis ping"#;
    let out = run("dev", &docker_run(&[], &["sh", "-c", script])).ok();
    let mut lines = out.lines();
    let count: u32 = lines.next().unwrap().parse().unwrap();
    assert!(count > 0, "{out}");
    assert_eq!(lines.next(), Some("PONG"), "{out}");
}

/// Asks both databases something that they know, and Redis to keep a value that is not small.
fn databases(pg: SocketAddr, redis: SocketAddr, what: &str) {
    let address = pg.ip().to_string();
    let mut psql = Command::new("psql");
    psql.env("PGPASSWORD", "shop")
        .env("PGCONNECT_TIMEOUT", "20");
    psql.args(["-h", &address, "-p", &pg.port().to_string(), "-U", "shop"]);
    psql.args(["-At", "-c", COUNT, "-c"]);
    psql.arg("select length(repeat('x', 5000000)), repeat('x', 5000000)");
    let out = finish(&mut psql, b"").ok();
    let mut lines = out.lines();
    let count: u32 = lines.next().unwrap().parse().unwrap();
    assert!(count > 0, "{what}");
    let (length, text) = lines.next().unwrap().split_once('|').unwrap();
    assert_eq!((length, text.len()), ("5000000", 5_000_000), "{what}");

    let cli = |args: &[&str], input| {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", &address, "-p", &redis.port().to_string()])
            .args(args);
        finish(&mut cli, input).ok()
    };
    const VALUE: &[u8] = &[b'v'; 1 << 20];
    let key = format!("kdev-real-{}", std::process::id());
    assert_eq!(cli(&["-x", "set", &key], VALUE).trim(), "OK", "{what}");
    assert_eq!(cli(&["strlen", &key], b"").trim(), "1048576", "{what}");
    assert_eq!(cli(&["del", &key], b"").trim(), "1", "{what}");
}

/// A local port each of whose connections goes through `way`.
async fn relay(way: Way, target: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[allow(clippy::disallowed_methods)] // Ends with the test's runtime.
    tokio::spawn(async move {
        let mut all = JoinSet::new();
        while let Ok((mut app, _)) = listener.accept().await {
            all.spawn(async move {
                let mut stream = way.open(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut app, &mut stream).await;
                let _ = app.shutdown().await;
            });
        }
    });
    address
}

#[test]
#[ignore = "needs the lab"]
fn the_laptops_own_network_works_through_the_same_proxy() {
    // A container that kdev has no part in is a machine of the laptop's network.
    let server = Container::start("server", &["/opt/lab/peer"]);
    let url = format!("http://{}:8080/", server.address());
    wait_for(&url);
    let proxied = run("dev", &[&CURL[..], &["-v", &url]].concat());
    assert!(proxied.err.contains("Uses proxy") || proxied.err.contains("127.0.0.1"));
    let text = proxied.ok();
    assert!(text.starts_with("GET / HTTP/1.1"), "{text}");
    let text = run("dev", &docker_run(&[], &curl(&[&url]))).ok();
    assert!(text.starts_with("GET / HTTP/1.1"), "{text}");

    let proxy = Running::connect("dev");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let target = format!("{}:8080", server.address());
    for way in proxy.ways() {
        let answer = runtime.block_on(way.get(&target, "/")).unwrap();
        assert_eq!(answer.status, 200, "{way:?}");
        let here = answer.text().lines().any(|line| line.contains(&target));
        assert!(here, "{way:?}: {}", answer.text());
    }
    proxy.stop();
}

/// Waits for a server that was just started.
fn wait_for(url: &str) {
    for _ in 0..100 {
        if finish(
            Command::new("curl").args(["-s", "-m", "2", "-o", "/dev/null", url]),
            b"",
        )
        .code
            == 0
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{url} does not answer");
}

#[test]
#[ignore = "needs the lab"]
fn a_container_reaches_the_laptops_loopback_only_when_told_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://127.0.0.1:{}/",
        listener.local_addr().unwrap().port()
    );
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhome");
        }
    });
    let script = format!(
        "curl -sS -m 20 --noproxy '' -x $HTTP_PROXY {url}; \
         curl -sS -m 20 --noproxy '' -x $KDEV_SOCKS_PROXY {url}"
    );
    let argv = docker_run(&[], &["sh", "-c", &script]);
    let closed = run("dev", &argv);
    assert!(closed.out.contains("--host-loopback"), "{closed:?}");
    assert!(!closed.out.contains("home"), "{closed:?}");
    let mut open = kdev("dev");
    open.args(["run", "--host-loopback", "--"]).args(&argv);
    let open = finish(&mut open, b"");
    assert_eq!(open.out, "homehome", "{open:?}");
}

#[test]
#[ignore = "needs the lab"]
fn exit_codes_and_standard_input_pass() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        let done = run("dev", &["sh", "-c", script]);
        assert_eq!(done.code, code, "{script}: {done:?}");
    }
    assert_eq!(run("dev", &["no-such-command"]).code, 127);
    assert_eq!(run("dev", &["/etc/passwd"]).code, 126);
    assert_eq!(
        run("dev", &docker_run(&[], &["sh", "-c", "exit 42"])).code,
        42
    );

    const INPUT: &[u8] = &[b'i'; 300_000];
    let mut cat = kdev("dev");
    let done = finish(cat.args(["run", "--", "cat"]), INPUT);
    assert_eq!(done.ok().len(), INPUT.len());
    let mut cat = kdev("dev");
    cat.args(["run", "--"]).args(docker_run(&["-i"], &["cat"]));
    assert_eq!(finish(&mut cat, INPUT).ok().len(), INPUT.len());
    let mut broken = kdev("dev");
    broken.args(["--kubeconfig", "/no/such/file", "run", "--", "true"]);
    let done = finish(&mut broken, b"");
    // clap takes a flag once; which of the two complaints it is does not matter here.
    assert!([2, 125].contains(&done.code), "{done:?}");
}

#[test]
#[ignore = "needs the lab"]
fn create_is_refused_with_the_way_out() {
    let done = run("dev", &["docker", "create", TOOLS, "true"]);
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.err.contains("docker run"), "{}", done.err);
}

#[test]
#[ignore = "needs the lab"]
fn only_the_sessions_own_containers_get_in_without_the_password() {
    let script = "echo $HTTP_PROXY; exec sleep 20";
    let name = Container::name("secret");
    let argv = docker_run(&["--name", &name.0], &["sh", "-c", script]);
    let mut session = kdev("dev");
    let mut session = session.args(["run", "--"]).args(argv).spawn().unwrap();
    let mut url = String::new();
    let mut out = BufReader::new(session.stdout.take().unwrap());
    out.read_line(&mut url).unwrap();
    let url = url.trim();
    let (login, address) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('@')
        .unwrap();
    let (_, password) = login.split_once(':').unwrap();
    assert!(password.len() >= 20, "{url}");
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = process.path().join("cmdline");
        assert!(!contains(&path, password), "{}", path.display());
    }

    let ask = |proxy: &str, args: &[&str]| {
        let fixed = [
            "run", "--rm", "--pull", "never", TOOLS, "curl", "-s", "-m", "20",
        ];
        let rest = ["-o", "/dev/null", "-w", "%{http_code}", "-x", proxy];
        let url = ["http://web.shop/"];
        lab::docker(&[&fixed[..], &rest, args, &url].concat())
    };
    let stranger = ask(&format!("http://{address}"), &[]).unwrap_or_default();
    assert_eq!(stranger, "407", "a container of somebody else's");
    let socks = ask(&format!("socks5h://{address}"), &[]);
    socks.expect_err("a container of somebody else's, by SOCKS");
    assert_eq!(ask(url, &[]).unwrap(), "200", "with the password");
    let bare = format!("http://{address}");
    let own = ["exec", &name.0, "curl", "-s", "-m", "20", "-x", &bare];
    let own = [&own[..], &["http://web.shop/"]].concat();
    let pod = lab::docker(&own).unwrap();
    assert!(pod.starts_with("web-"), "without it, from inside: {pod}");

    lab::docker(&["kill", &name.0]).unwrap();
    assert_eq!(session.wait().unwrap().code(), Some(137));
}

fn contains(path: &Path, text: &str) -> bool {
    // Processes end while one looks.
    let content = std::fs::read(path).unwrap_or_default();
    content.windows(text.len()).any(|w| w == text.as_bytes())
}
