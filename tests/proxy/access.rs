//! Who may use the listener, and the few pages it has itself.

use std::time::Duration;

use kdev::proxy::{Access, AllowedPeers, Config, Pac, Password};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socks::{connect_to, greet, request};
use super::support::{Proxy, read_all, read_head, within};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// `user:pa:ss` and `:pa:ss`.
const GOOD: [&str; 2] = ["dXNlcjpwYTpzcw==", "OnBhOnNz"];

/// A proxy that lets `allowed` in, and all others with `pa:ss`.
async fn guarded(allowed: &AllowedPeers) -> Proxy {
    let proxy = Proxy::with(Config::new(Access::Peers {
        allowed: allowed.clone(),
        password: Password::new("pa:ss"),
    }))
    .await;
    proxy.origin("web.shop:80", OK).await;
    proxy
}

#[tokio::test]
async fn http_needs_the_password_in_each_request() {
    let allowed = AllowedPeers::new();
    let proxy = guarded(&allowed).await;
    let get = |auth: &str| {
        format!("GET http://web.shop/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}\r\n")
    };
    for good in GOOD {
        let answer = proxy
            .ask(get(&format!("Proxy-Authorization: bAsIc {good}\r\n")))
            .await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    for bad in [
        "",
        "Authorization: Basic OnBhOnNz\r\n",
        "Proxy-Authorization: Basic OnBh\r\n",
        "Proxy-Authorization: Basic cGE6c3M=\r\n",
        "Proxy-Authorization: Basic ???\r\n",
        "Proxy-Authorization: Basic\r\n",
        "Proxy-Authorization: Bearer OnBhOnNz\r\n",
    ] {
        let answer = proxy.ask(get(bad)).await;
        assert!(answer.starts_with("HTTP/1.1 407 "), "{bad}: {answer}");
        let challenge = "proxy-authenticate: Basic realm=\"kdev\"\r\n";
        assert!(answer.contains(challenge), "{bad}: {answer}");
    }
    // A browser's way: asked, then the same connection with the password.
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"CONNECT web.shop:80 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
    let mut rest = vec![
        0;
        head.rsplit_once("ength: ")
            .unwrap()
            .1
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    ];
    within(stream.read_exact(&mut rest)).await.unwrap();
    stream
        .write_all(b"CONNECT web.shop:80 HTTP/1.1\r\nProxy-Authorization: Basic OnBhOnNz\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // Addresses of the session's containers need none, from their next connection on.
    allowed.insert(proxy.addr.ip());
    assert!(proxy.ask(get("")).await.ends_with("ok"));
}

#[tokio::test]
async fn socks_needs_the_password_and_socks4_cannot_say_it() {
    let allowed = AllowedPeers::new();
    let proxy = guarded(&allowed).await;
    for (user, password, status) in [("u", "pa:ss", 0), ("u", "pa", 0xff), ("pa:ss", "u", 0xff)] {
        let mut stream = proxy.connect().await;
        assert_eq!(greet(&mut stream, &[0, 2]).await, 2);
        let mut login = vec![1, user.len() as u8];
        login.extend(user.as_bytes());
        login.push(password.len() as u8);
        login.extend(password.as_bytes());
        stream.write_all(&login).await.unwrap();
        let mut verdict = [0; 2];
        within(stream.read_exact(&mut verdict)).await.unwrap();
        assert_eq!(verdict, [1, status]);
        if status == 0 {
            assert_eq!(request(&mut stream, &connect_to("web.shop", 80)).await, 0);
        } else {
            assert_eq!(read_all(&mut stream).await, "");
        }
    }
    let mut stream = proxy.connect().await;
    assert_eq!(greet(&mut stream, &[0]).await, 0xff);
    let socks4 = b"\x04\x01\x00\x50\0\0\0\x01\0web.shop\0";
    for (code, allow) in [(0x5b, true), (0x5a, false)] {
        let mut stream = proxy.connect().await;
        stream.write_all(socks4).await.unwrap();
        let mut reply = [0; 8];
        within(stream.read_exact(&mut reply)).await.unwrap();
        assert_eq!(reply[1], code);
        if allow {
            allowed.insert(proxy.addr.ip());
        }
    }
}

#[tokio::test]
async fn one_user_with_a_password() {
    let password = Some(Password::new("pa:ss"));
    let proxy = Proxy::with(Config::new(Access::SameUser { password })).await;
    let answer = proxy
        .ask("GET http://web.shop/ HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn another_user_of_the_machine_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: other-user: only root can become another user");
        return;
    }
    let proxy = Proxy::start().await;
    // `nobody` has no way in, whatever it speaks; bash needs no tool that may be missing.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
        proxy.addr.port()
    );
    let run = |uid| {
        let mut bash = tokio::process::Command::new("bash");
        bash.args(["-c", &script]).current_dir("/").uid(uid);
        async move {
            let output = within(bash.output()).await.unwrap();
            String::from_utf8(output.stdout).unwrap()
        }
    };
    assert!(run(0).await.ends_with("ok\n"));
    assert_eq!(run(65534).await, "");
    assert_eq!(proxy.stats.snapshot().refused, 1);
}

#[tokio::test]
async fn the_proxys_own_pages() {
    let mut config = Config::new(Access::SameUser { password: None });
    config.pac = Some(Pac::new(|| "function FindProxyForURL() {}".to_owned()));
    let proxy = Proxy::with(config).await;
    for (request, host, status, part) in [
        ("GET /healthz", "anything", 200, "ok\n"),
        (
            "GET /proxy.pac",
            "127.0.0.1:1",
            200,
            "x-ns-proxy-autoconfig",
        ),
        ("GET /proxy.pac", "[::1]:1", 200, "FindProxyForURL"),
        ("GET /proxy.pac", "LocalHost", 200, "FindProxyForURL"),
        ("GET /proxy.pac", "evil.example:1", 404, "127.0.0.1"),
        ("GET /proxy.pac", "127.0.0.1.evil.example", 404, "127.0.0.1"),
        ("POST /proxy.pac", "127.0.0.1", 405, "GET"),
        ("GET /", "127.0.0.1", 400, "this is kdev's proxy"),
        ("GET /", "web.shop", 400, "this is kdev's proxy"),
        ("OPTIONS *", "web.shop", 400, "this is kdev's proxy"),
    ] {
        let answer = proxy
            .ask(format!(
                "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request} {host}: {answer}"
        );
        assert!(answer.contains(part), "{request} {host}: {answer}");
    }
    // A browser that looks for its own settings, and one whose page does, by each way there is.
    let ask = async |fetch: &str| {
        let request = format!("GET /proxy.pac HTTP/1.0\r\nHost: 127.0.0.1\r\n{fetch}\r\n");
        proxy.ask(&request).await
    };
    for own in [
        "",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: empty\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
    ] {
        let answer = ask(own).await.to_ascii_lowercase();
        assert!(
            answer.contains(" 200 ") && answer.contains("findproxyforurl"),
            "{own}: {answer}"
        );
        for header in [
            "cross-origin-resource-policy: same-origin",
            "x-content-type-options: nosniff",
        ] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
    }
    for page in [
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        "Sec-Fetch-Mode: no-cors\r\n",
    ] {
        let answer = ask(page).await;
        assert!(
            answer.contains(" 404 ") && !answer.contains("FindProxyForURL"),
            "{page}: {answer}"
        );
    }
    let answer = proxy.ask("GET /proxy.pac HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");
    let proxy = guarded(&AllowedPeers::new()).await;
    let healthz = "GET /healthz HTTP/1.0\r\n\r\n";
    assert!(proxy.ask(healthz).await.ends_with("ok\n"));
}

#[tokio::test]
async fn draining_ends_idle_connections_and_lets_streams_go_on() {
    let proxy = Proxy::start().await;
    proxy.origin("web.shop:80", OK).await;
    proxy.echo("echo.shop:80").await;
    let mut tunnel = proxy.connect().await;
    tunnel
        .write_all(b"CONNECT echo.shop:80 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    read_head(&mut tunnel).await.unwrap();
    let mut idle = proxy.connect().await;
    idle.write_all(b"GET http://web.shop/ HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut idle).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    proxy.tasks.drain();
    assert_eq!(read_all(&mut idle).await, "ok");
    tunnel.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    within(tunnel.read_exact(&mut echoed)).await.unwrap();
    within(async {
        while tokio::net::TcpStream::connect(proxy.addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_waits() {
    let mut config = Config::new(Access::SameUser { password: None });
    config.max_connections = 2;
    let proxy = Proxy::with(config).await;
    let first = proxy.connect().await;
    let _second = proxy.connect().await;
    let mut third = proxy.connect().await;
    third
        .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), third.readable()).await;
    assert!(waiting.is_err());
    drop(first);
    assert!(read_all(&mut third).await.ends_with("ok\n"));
}
