//! What else callers send than short requests: WebSockets, HTTP/2, bulk, protocols that are no HTTP, and
//! what is meant to be understood differently by two readers.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::app::{App, SCRIPT};
use super::call;
use super::pods::deploy;
use super::session::{Intercept, LAG, command};
use crate::callers::on_the_node;
use crate::program::finish_within;
use crate::team::Team;

const ANNS: &str = "x-user: ann";
/// How long a greeting may take: far less than any guess at a protocol would wait.
const GREETED: f64 = 0.5;

/// How long a caller may take: 500 requests, one after the other, on a machine that has much else to do.
const CALLER_LIMIT: Duration = Duration::from_secs(180);

/// A caller in the cluster that does something special.
pub(super) fn caller(kind: &str, host: &str, more: &[&str], input: &'static [u8]) -> String {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/real/intercept/caller.py"
    );
    let mut command = on_the_node();
    command.args(["python3", script, kind, host]).args(more);
    finish_within(CALLER_LIMIT, &mut command, input).ok()
}

/// A team whose pods say who they are in several ways.
pub(super) fn echo(what: &str) -> (Team, String) {
    let team = Team::set_up(what, true);
    let folder = Path::new(SCRIPT).parent().unwrap();
    let command = "exec python3 /from/app.py $(hostname) 8080 9000";
    let ports = [("http", 80, 8080), ("greets", 3306, 9000)];
    deploy(&team, "echo", command, folder.to_str().unwrap(), &ports);
    let address = team.address("echo");
    (team, address)
}

#[test]
#[ignore = "needs the lab"]
fn upgrades_bulk_and_other_protocols_arrive_whole() {
    let (team, address) = echo("kinds");
    let ann = App::of("ann");
    let personal = Intercept::live(&team, &ann, &["echo:http", "--header", ANNS]);
    std::thread::sleep(LAG);
    let socket = |more: &[&str]| caller("websocket", &address, &[&["80"], more].concat(), b"");
    assert_eq!(socket(&[ANNS]).trim(), ann.name);
    assert!(socket(&[]).starts_with("echo-"));

    let said = caller("uploads", &address, &["80", ANNS], b"");
    assert_eq!(said.lines().count(), 13, "{said}");
    assert!(said.lines().all(|line| line == ann.name), "{said}");
    let said = caller("uploads", &address, &["80"], b"");
    assert!(said.lines().all(|line| line.starts_with("echo-")), "{said}");

    let said = caller("lines", &address, &["80", ANNS], b"");
    assert_eq!(said.lines().count(), 6, "{said}");
    assert!(said.lines().all(|line| line == ann.name), "{said}");
    let said = caller("lines", &address, &["80"], b"");
    assert!(said.lines().all(|line| line.starts_with("echo-")), "{said}");

    let said = caller(
        "raw",
        &address,
        &["80"],
        b"GET /request HTTP/1.0\r\nX-Old: 1\r\n\r\n",
    );
    assert!(said.to_ascii_lowercase().contains("x-old: 1"), "{said}");
    let named = said.contains("kdev-") || said.contains("\nHost:");
    assert!(!named, "{said}");

    let head = call(
        &format!("{address}/request"),
        &["-H", "x-USER: ann", "-H", "x-Odd: 1"],
    );
    assert!(
        head.contains("x-USER: ann") && head.contains("x-Odd: 1"),
        "{head}"
    );
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains("x-forwarded-for: "), "{head}");
    let all = call(&address, &["-H", ANNS, "-i"]).to_ascii_lowercase();
    assert!(all.contains("cache-control: no-store"), "{all}");

    // What speaks first is heard at once, by way of the same Service's other port.
    let greeting = || {
        let said = caller("greeting", &address, &["3306"], b"");
        let (seconds, said) = said.trim().split_once(' ').unwrap();
        let seconds: f64 = seconds.parse().unwrap();
        assert!(seconds < GREETED, "{seconds} s until {said}");
        said.to_owned()
    };
    assert!(greeting().starts_with("echo-"));
    let to = ann.greeter.to_string();
    let mut global = command(&team, "ann", &["echo:greets", "--to", &to]);
    let global = Intercept::attempt(&mut global).unwrap_or_else(|refused| panic!("{refused:?}"));
    std::thread::sleep(LAG);
    assert_eq!(greeting(), format!("{} greets", ann.name));
    global.end();
    assert!(greeting().starts_with("echo-"));
    personal.end();
}

/// A server that understands HTTP/2 from the first byte, and nothing else.
fn http2_only() -> u16 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(async {
                    // A look whether somebody listens says nothing.
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let answer = format!("{:?} {}", request.version(), request.uri().path());
                        let mut body = respond
                            .send_response(http::Response::new(()), false)
                            .unwrap();
                        body.send_data(Bytes::from(answer), true).unwrap();
                    }
                });
            }
        });
    });
    port
}

/// A server that writes down all that it is sent, and answers each piece of it.
pub(super) fn recorder() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let record: Arc<Mutex<Vec<u8>>> = Arc::default();
    let all = record.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, record) = (stream.unwrap(), record.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    record.lock().unwrap().extend(&buffer[..n]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nlaptop");
                }
            });
        }
    });
    (port, all)
}

/// Requests whose end two readers see in different places. All are of ann's, but for what they hide.
const AMBIGUOUS: [&[u8]; 5] = [
    b"POST /a HTTP/1.1\r\nHost: x\r\nx-user: ann\r\nContent-Length: 48\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nx-user: ann\r\nContent-Length: 3\r\nContent-Length: 48\r\n\r\nabcGET /hidden HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: x\r\nx-user: ann\r\nContent-Length: 3\r\nTransfer-Encoding: chunked, identity\r\n\r\nabcGET /hidden HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: x\r\nx-user: ann\r\nContent-Length: 3\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: x\r\nx-user: ann\r\nContent-Length: +3\r\n\r\nabcGET /hidden HTTP/1.1\r\nHost: x\r\nx-user: ann\r\n\r\n",
];

#[test]
#[ignore = "needs the lab"]
fn a_request_has_one_end_and_http2_stays_http2() {
    let (team, address) = echo("ends");
    let (port, record) = recorder();
    let (two, to) = (http2_only().to_string(), port.to_string());
    let start = |args: &[&str]| {
        let mut command = command(&team, "ann", args);
        Intercept::attempt(&mut command).unwrap_or_else(|refused| panic!("{args:?}: {refused:?}"))
    };
    let anns = start(&["echo:http", "--header", ANNS, "--to", &to]);
    let bobs = start(&["echo:http", "--header", "x-user: bob", "--to", &two]);
    std::thread::sleep(LAG);
    let knows = ["--http2-prior-knowledge", "-H", "x-user: bob"];
    assert_eq!(
        call(&format!("{address}/two"), &knows),
        "HTTP/2.0 /two",
        "{}",
        bobs.told()
    );

    assert_eq!(call(&address, &["-H", ANNS]), "laptop");
    for request in AMBIGUOUS {
        record.lock().unwrap().clear();
        let answer = caller("raw", &address, &["80"], request);
        std::thread::sleep(Duration::from_millis(200));
        let sent = record.lock().unwrap().clone();
        let sent = String::from_utf8_lossy(&sent).to_ascii_lowercase();
        let first = answer.lines().next().unwrap_or_default();
        println!("{first:?}: {sent:?}");
        for head in sent.split("\r\n\r\n") {
            let names = head.lines().filter_map(|line| line.split_once(':'));
            let lengths = names
                .filter(|(name, _)| ["content-length", "transfer-encoding"].contains(&name.trim()));
            assert!(lengths.count() <= 1, "{sent}");
        }
        // Nobody is told that it worked for what was never sent.
        let alone = sent.is_empty();
        assert!(!alone || !first.starts_with("HTTP/1.1 2"), "{answer}");
        assert_eq!(call(&address, &["-H", ANNS]), "laptop", "{}", anns.told());
    }
    let pods: BTreeSet<String> = (0..8).map(|_| call(&address, &[])).collect();
    assert!(pods.iter().all(|pod| pod.starts_with("echo-")), "{pods:?}");
    bobs.end();
    anns.end();
}
