//! Logins from the proxy's URL, and what is said without a good one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kdev::task::Tasks;
use kdev::upstream::{Carries, Proxies, ProxyError, ProxyVars};
use tokio::net::TcpListener;

use crate::support::{Corporate, LOGIN, Request, hello, read_all};

fn basic(user_and_password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(user_and_password))
}

/// Lets in who sends `login`.
fn asks_for(login: &str) -> impl Fn(&Request) -> Option<String> + Send + Sync + 'static {
    let login = login.to_owned();
    move |request| {
        let sent = request.header("proxy-authorization");
        (sent != Some(login.as_str())).then(|| LOGIN.to_owned())
    }
}

async fn open(proxies: &Proxies, target: &str) -> Result<String, ProxyError> {
    let target = target.parse().unwrap();
    let chosen = proxies.choose(&target, Carries::Stream)?.unwrap();
    let mut stream = chosen.proxy.open(&target).await?;
    Ok(read_all(&mut stream).await)
}

#[tokio::test]
async fn a_password_with_special_characters_logs_in() {
    let tasks = Tasks::new();
    let judge = asks_for(&basic(r"CORP\me:p@ss:w%"));
    let corporate = Corporate::start(hello(&tasks).await, judge).await;
    let proxies = corporate.proxies("CORP%5Cme:p%40ss:w%25@", None);
    let said = open(&proxies, "only.the-proxy.knows:443").await.unwrap();
    assert_eq!(said, "hello");
    assert_eq!(
        corporate.lines(),
        ["CONNECT only.the-proxy.knows:443 HTTP/1.1"],
        "at once, and by name"
    );
}

#[tokio::test]
async fn who_has_no_login_is_told_so_and_a_refused_one_is_not_tried_again_and_again() {
    let tasks = Tasks::new();
    let corporate = Corporate::start(hello(&tasks).await, asks_for("never")).await;
    let error = open(&corporate.proxies("", None), "a.test:443").await;
    let text = error.unwrap_err().to_string();
    for part in ["asks for a login", "Basic realm=\"corp\"", "USER:PASSWORD"] {
        assert!(text.contains(part), "{text}");
    }
    let before = corporate.lines().len();
    let proxies = corporate.proxies("me:secret@", None);
    for _ in 0..5 {
        let error = open(&proxies, "a.test:443").await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_login(), "{text}");
        assert!(text.contains("user \"me\""), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert_eq!(corporate.lines().len() - before, 1, "no account is locked");
}

#[tokio::test]
async fn other_refusals_say_what_the_proxy_said() {
    let answer = |text: &'static str| move |_: &Request| Some(text.to_owned());
    let tasks = Tasks::new();
    let origin = hello(&tasks).await;
    for (text, part) in [
        (
            "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 0\r\n\r\n",
            "refuses a connection to a.test:443: 403 Forbidden (ERR_ACCESS_DENIED",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            "cannot connect to a.test:443: 502",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        ("", "closed the connection"),
    ] {
        let closing = text.is_empty();
        let corporate = Corporate::start(origin, answer(text)).await;
        if closing {
            corporate.tasks.kill();
        }
        let error = open(&corporate.proxies("", None), "a.test:443").await;
        let said = error.unwrap_err().to_string();
        let gone = closing && said.contains("cannot be reached");
        assert!(said.contains(part) || gone, "{said}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["http", "https", "socks5"] {
        let vars = ProxyVars {
            all: format!("{scheme}://me:secret@{addr}"),
            ..ProxyVars::default()
        };
        let error = open(&Proxies::new(vars, None), "a.test:443").await;
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains(&format!("{scheme}://{addr} cannot")),
            "{text}"
        );
    }
}
