//! Logins that a program of the user's makes.

use kdev::task::Tasks;
use kdev::upstream::{Carries, Proxies, ProxyError};

use crate::support::{Corporate, LOGIN, Request, count, hello, read_all, script};

async fn open(proxies: &Proxies) -> Result<String, ProxyError> {
    let target = "a.test:443".parse().unwrap();
    let chosen = proxies.choose(&target, Carries::Stream)?.unwrap();
    let mut stream = chosen.proxy.open(&target).await?;
    Ok(read_all(&mut stream).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_is_kept_and_asked_for_again_when_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, "Bearer one").unwrap();
    let accepted = good.clone();
    let tasks = Tasks::new();
    let corporate = Corporate::start(hello(&tasks).await, move |request: &Request| {
        let good = std::fs::read_to_string(&accepted).unwrap();
        let sent = request.header("proxy-authorization");
        (sent != Some(good.as_str())).then(|| LOGIN.to_owned())
    })
    .await;
    let seen = folder.path().join("seen");
    let (command, runs) = script(
        &folder,
        &format!(
            "{{ head -n 4; echo \"$KDEV_PROXY_URL\"; }} > {}; cat {}",
            seen.display(),
            good.display()
        ),
    );
    let proxies = corporate.proxies("", Some(&command));
    for said in futures_util::future::join_all((0..20).map(|_| open(&proxies))).await {
        assert_eq!(said.unwrap(), "hello");
    }
    assert_eq!(count(&runs), 1, "one answer serves all");
    let url = format!("http://{}", corporate.addr);
    assert_eq!(
        std::fs::read_to_string(&seen).unwrap(),
        format!("proxy={url}\nhost=127.0.0.1\nchallenge=Basic realm=\"corp\"\n\n{url}\n")
    );
    std::fs::write(&good, "Bearer two").unwrap();
    open(&proxies).await.unwrap();
    assert_eq!(count(&runs), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_over_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let corporate = Corporate::start(hello(&tasks).await, |request: &Request| {
        let challenge = |value: &str| {
            Some(format!(
                "HTTP/1.1 407 No\r\nProxy-Authenticate: {value}\r\nContent-Length: 4\r\n\r\nbody"
            ))
        };
        match (request.header("proxy-authorization"), request.nth) {
            (Some("NTLM type1"), 1) => challenge("NTLM type2"),
            (Some("NTLM type3-for-type2"), 2) => None,
            _ => challenge("NTLM"),
        }
    })
    .await;
    let (command, runs) = script(
        &folder,
        "while read -r line; do case $line in
           challenge=NTLM) echo NTLM type1 ;;
           challenge=NTLM\\ *) echo NTLM type3-for-${line#challenge=NTLM } ;;
         esac; done",
    );
    let proxies = corporate.proxies("", Some(&command));
    for n in 1..=2 {
        assert_eq!(open(&proxies).await.unwrap(), "hello");
        assert_eq!(count(&runs), n, "NTLM is for one connection");
    }
    let nth: Vec<usize> = corporate
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.nth)
        .collect();
    assert_eq!(nth, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_gives_nothing_good_is_named_with_what_it_did() {
    let tasks = Tasks::new();
    let origin = hello(&tasks).await;
    let large = "head -c 70000 /dev/zero | tr '\\0' x";
    for (text, part) in [
        (
            "echo no ticket >&2; exit 3",
            "failed with exit status: 3: no ticket",
        ),
        ("true", "printed nothing"),
        ("echo hello", "something else than `SCHEME VALUE`"),
        (large, "a line of more than 65536 bytes"),
        (
            "echo Basic wrong",
            "does not accept the login that the helper gave",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let corporate = Corporate::start(origin, |_: &Request| Some(LOGIN.to_owned())).await;
        let (command, runs) = script(&folder, text);
        let proxies = corporate.proxies("", Some(&command));
        let said = open(&proxies).await.unwrap_err().to_string();
        assert!(said.contains(part), "{text}: {said}");
        open(&proxies).await.unwrap_err();
        assert_eq!(count(&runs), 1, "{text}: not run for every connection");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let corporate = Corporate::start(hello(&tasks).await, |_: &Request| Some(LOGIN.to_owned()));
    let corporate = corporate.await;
    let child = folder.path().join("child");
    let hang = format!("sleep 1000 & echo $! > {}; wait", child.display());
    let (command, _) = script(&folder, &hang);
    let error = open(&corporate.proxies("", Some(&command))).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("did not answer within 10 s and was killed"),
        "{text}"
    );
    let pid = std::fs::read_to_string(child).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let gone = || std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "));
    for _ in 0..1000 {
        if gone() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the helper's child is still there");
}
