//! Containers of a real Docker behind the real proxy. Instead of a cluster there is a dial that
//! knows every name, so what is seen here is the way from the container to kdev.

mod session;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use kdev::run::container::{ContainerError, Peers};

use session::{ALL_WAYS, IMAGE, Network, SECRET, docker, run, session};

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_container_reaches_kdev_by_its_variables_and_by_its_address() {
    let (code, dialled) = run(&[], ALL_WAYS).await;
    assert_eq!(code, 0);
    assert_eq!(
        dialled,
        ["http.shop", "socks.shop", "http.bare", "socks.bare"]
    );
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn networks_of_the_user_lead_to_kdev_as_well() {
    for flags in [&[][..], &["--internal"]] {
        let network = Network::create("kdev-test-net", flags).await;
        let (code, dialled) = run(&["--network", network.0], ALL_WAYS).await;
        assert_eq!(code, 0, "{flags:?}");
        assert_eq!(dialled.len(), 4, "{flags:?}");
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_hosts_network_leads_to_a_listener_on_loopback() {
    let session = session(&[
        "docker",
        "run",
        "--rm",
        "--network",
        "host",
        IMAGE,
        "curl",
        "-sSf",
        "http://web.shop/",
    ])
    .await
    .unwrap();
    assert!(session.plan.listen.ip.is_loopback());
    assert_eq!(session.plan.peers, Peers::Password);
    assert_eq!(session.start().await.0, 0);
    assert_eq!(session.dialled(), ["web.shop"]);
    session.end().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_container_that_joins_anothers_network_is_known_by_its_address() {
    let network = Network::create("kdev-test-joined", &[]).await;
    let name = "kdev-test-owner";
    docker(&["rm", "--force", name]).await;
    let owner = [
        "run",
        "-d",
        "--rm",
        "--name",
        name,
        "--network",
        network.0,
        IMAGE,
        "sleep",
        "60",
    ];
    let out = docker(&owner).await;
    assert!(out.status.success(), "{out:?}");
    let (code, dialled) = run(&["--network", "container:kdev-test-owner"], ALL_WAYS).await;
    docker(&["rm", "--force", name]).await;
    assert_eq!(code, 0);
    assert_eq!(dialled.len(), 4);
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_neighbour_on_the_network_is_reached_directly_and_gets_nothing_itself() {
    let network = Network::create("kdev-test-shared", &[]).await;
    let name = "kdev-test-neighbour";
    docker(&["rm", "--force", name]).await;
    let serve =
        "mkdir -p /tmp/w; echo hi >/tmp/w/index.html; exec python3 -m http.server 8000 -d /tmp/w";
    let flags = [
        "run",
        "-d",
        "--rm",
        "--name",
        name,
        "--network",
        network.0,
        IMAGE,
    ];
    let out = docker(&[&flags[..], &["sh", "-c", serve]].concat()).await;
    assert!(out.status.success(), "{out:?}");

    let by_name = "for i in 1 2 3 4 5; do curl -sSf http://kdev-test-neighbour:8000/ && exit 0; sleep 1; done; exit 1";
    let session = session(&[
        "docker",
        "run",
        "--rm",
        "--network",
        network.0,
        IMAGE,
        "sh",
        "-c",
        by_name,
    ])
    .await
    .unwrap();
    let (code, _started) = session.start().await;
    assert_eq!(session.dialled(), Vec::<String>::new());
    assert_eq!(code, 0);

    // It was not started by this session: its address opens nothing, and a wrong password neither.
    let url = format!("http://{}", session.proxy.authority());
    for extra in [&[][..], &["--proxy-user", "kdev:wrong"]] {
        let exec = [
            "exec",
            name,
            "curl",
            "-sSf",
            "-m",
            "10",
            "-x",
            &url,
            "http://web.shop/",
        ];
        let out = docker(&[&exec[..], extra].concat()).await;
        assert!(!out.status.success(), "{out:?}");
    }
    docker(&["rm", "--force", name]).await;
    assert_eq!(session.dialled(), Vec::<String>::new());
    session.end().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn a_detached_container_is_waited_for() {
    for (flags, script, expected) in [
        (
            &["-d"][..],
            "sleep 1; curl -sSf http://web.shop/ && exit 5",
            5,
        ),
        (
            &["-d", "--rm"],
            "sleep 1; curl -sSf http://web.shop/ && exit 6",
            6,
        ),
        // Ended and removed before anybody could ask.
        (&["-d", "--rm"], "curl -sSf http://web.shop/ && exit 7", 7),
    ] {
        let argv = [&["docker", "run"], flags, &[IMAGE, "sh", "-c", script]].concat();
        let session = session(&argv).await.unwrap();
        let (code, started) = session.start().await;
        assert_eq!(code, 0);
        assert!(started.detached());
        if expected == 7 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(started.follow().await.unwrap(), expected, "{flags:?}");
        assert_eq!(session.dialled(), ["web.shop"]);
        let label = format!("label=dev.kdev.session={}", session.id);
        let left = docker(&["ps", "-aq", "--filter", &label]).await.stdout;
        let left = String::from_utf8(left).unwrap();
        assert!(flags.contains(&"--rm") || !left.is_empty());
        for id in left.split_whitespace() {
            docker(&["rm", "--force", id]).await;
        }
        session.end().await;
    }
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn restarts_are_followed_and_the_end_leaves_the_container_running() {
    let script = "test -e /tmp/again && exit 3; touch /tmp/again; exit 2";
    let session = session(&[
        "docker",
        "run",
        "-d",
        "--restart",
        "on-failure:1",
        IMAGE,
        "sh",
        "-c",
        script,
    ])
    .await
    .unwrap();
    let (_, started) = session.start().await;
    assert_eq!(started.follow().await.unwrap(), 3);
    assert!(
        started.farewell().contains("docker stop "),
        "{}",
        started.farewell()
    );
    let label = format!("label=dev.kdev.session={}", session.id);
    let left = docker(&["ps", "-aq", "--filter", &label]).await.stdout;
    docker(&["rm", "--force", String::from_utf8(left).unwrap().trim()]).await;
    session.end().await;
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn the_password_is_in_no_argument_list() {
    let session = session(&["docker", "run", "--rm", IMAGE, "sh", "-c", "sleep 2"])
        .await
        .unwrap();
    let watch = async {
        let until = Instant::now() + Duration::from_millis(1500);
        let mut seen = 0;
        while Instant::now() < until {
            seen += command_lines()
                .filter(|line| {
                    assert!(!line.contains(&*SECRET), "{line}");
                    line.contains("--env-file")
                })
                .count();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    };
    let ((code, _), seen) = tokio::join!(session.start(), watch);
    assert_eq!(code, 0);
    assert!(seen > 0, "the command was never seen");
    session.end().await;
}

fn command_lines() -> impl Iterator<Item = String> {
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    })
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_the_user_says_wins() {
    let dir = std::env::temp_dir().join(format!("kdev-test-user-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    std::fs::write(file("env"), "NODE_USE_ENV_PROXY=0\n").unwrap();
    let script =
        "test \"$HTTPS_PROXY\" = theirs -a \"$NODE_USE_ENV_PROXY\" = 0 -a -n \"$HTTP_PROXY\"";
    let (env, cid) = (file("env"), file("cid"));
    let flags = [
        "-e",
        "HTTPS_PROXY=theirs",
        "--env-file",
        &env,
        "--cidfile",
        &cid,
    ];
    assert_eq!(run(&flags, script).await.0, 0);
    assert_eq!(std::fs::read_to_string(&cid).unwrap().len(), 64);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn proxies_of_the_docker_client_give_way_to_kdevs() {
    let dir = std::env::temp_dir().join(format!("kdev-test-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config =
        r#"{"proxies": {"default": {"httpProxy": "http://corp:1", "noProxy": "git.corp"}}}"#;
    std::fs::write(dir.join("config.json"), config).unwrap();
    let script =
        "curl -sSf http://web.shop/ && case $NO_PROXY in *git.corp*) exit 0;; *) exit 9;; esac";
    let session = session(&[
        "docker",
        "--config",
        dir.to_str().unwrap(),
        "run",
        "--rm",
        IMAGE,
        "sh",
        "-c",
        script,
    ])
    .await
    .unwrap();
    assert_eq!(session.start().await.0, 0);
    assert_eq!(session.dialled(), ["web.shop"]);
    session.end().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
#[ignore = "needs the lab"]
async fn what_cannot_work_is_refused_before_anything_starts() {
    let none = session(&["docker", "run", "--network", "none", IMAGE]).await;
    assert!(matches!(none.err(), Some(ContainerError::NoNetwork)));
    let unknown = session(&["docker", "run", "--network", "kdev-no-such", IMAGE]).await;
    let unknown = unknown.err().unwrap().to_string();
    assert!(unknown.contains("kdev-no-such"), "{unknown}");
    let dead = session(&["docker", "-H", "unix:///nowhere.sock", "run", IMAGE]).await;
    let dead = dead.err().unwrap();
    assert!(matches!(dead, ContainerError::Engine { .. }), "{dead}");
    let gateway: IpAddr = session(&["docker", "run", IMAGE])
        .await
        .unwrap()
        .plan
        .listen
        .ip;
    assert!(!gateway.is_loopback());
}
