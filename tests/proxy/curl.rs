//! curl, as users point it at the proxy. Skipped where it is not installed.

use kdev::proxy::{Access, AllowedPeers, Config, Password};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::support::{Proxy, read_head, within};

async fn curl(args: &[&str]) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "8"]).args(args);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    match within(command.output()).await {
        Ok(output) => Some(
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        ),
        Err(error) => {
            println!("SKIPPED: curl: it is not installed: {error}");
            None
        }
    }
}

/// An origin that says what was asked, and takes uploads.
async fn start(config: Config) -> Proxy {
    let proxy = Proxy::with(config).await;
    for name in ["web.shop:80", "10.96.0.1:80"] {
        proxy
            .server(name, |mut stream, _| async move {
                while let Some(head) = read_head(&mut stream).await {
                    let line = head.lines().next().unwrap().to_owned();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
                        line.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            })
            .await;
    }
    proxy
}

#[tokio::test]
async fn every_way_in() {
    let proxy = start(Config::new(Access::SameUser { password: None })).await;
    let (addr, line) = (proxy.addr.to_string(), "GET /path HTTP/1.1");
    let (http, url) = (format!("http://{addr}"), "http://web.shop/path");
    for args in [
        &["-x", &http, url][..],
        &["-x", &http, "-p", url],
        &["--proxy1.0", &addr, "-p", url],
        &["--socks5-hostname", &addr, url],
        &["--socks4a", &addr, url],
        &["--socks5", &addr, "http://10.96.0.1/path"],
        &["--socks4", &addr, "http://10.96.0.1/path"],
    ] {
        let Some(output) = curl(args).await else {
            return;
        };
        assert_eq!(output, line, "{args:?}");
    }
    // Two transfers over one connection to the proxy, and a failure that says why.
    let output = curl(&["-x", &http, url, url]).await.unwrap();
    assert_eq!(output, line.repeat(2));
    let output = curl(&["-x", &http, "http://nowhere/"]).await.unwrap();
    assert_eq!(
        output,
        "kdev: host nowhere was not found; look at the test\n"
    );
    let output = curl(&["-x", &http, "https://nowhere/"]).await.unwrap();
    assert!(output.contains("502"), "{output}");
    proxy.quiet().await;
}

#[tokio::test]
async fn with_a_password() {
    let proxy = start(Config::new(Access::Peers {
        allowed: AllowedPeers::new(),
        password: Password::new("secret"),
    }))
    .await;
    let (addr, url) = (proxy.addr, "http://web.shop/path");
    for scheme in ["http", "socks5h"] {
        let good = format!("{scheme}://kdev:secret@{addr}");
        for args in [&["-x", &good, url][..], &["-x", &good, "-p", url]] {
            let Some(output) = curl(args).await else {
                return;
            };
            assert_eq!(output, "GET /path HTTP/1.1", "{args:?}");
        }
        let bad = format!("{scheme}://kdev:wrong@{addr}");
        let output = curl(&["-x", &bad, url]).await.unwrap();
        assert!(!output.contains("GET /path"), "{output}");
    }
}
