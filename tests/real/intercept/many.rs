//! More people on one Service than any team has.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Instant;

use serde_json::{Value, json};

use super::session::{Intercept, LAG, command};
use super::{assert_as_before, call, from_a_pod};
use crate::callers::on_the_node;
use crate::hostile::pod::{Memory, Pod};
use crate::lab;
use crate::program::finish;
use crate::team::Team;

/// How many people.
const MANY: usize = 250;
/// How many of them begin at a time: two cores start no more of them in a second.
const AT_A_TIME: usize = 4;
/// What one Service takes.
const MOST: usize = 500;
/// What a relay pod may have in all, and how much of it so many tunnels may take.
const MEMORY_LIMIT: u64 = 128 << 20;

/// Calls with the header of each of the people, four at a time, and prints who answered which.
const CALLERS: &str = "
import concurrent.futures, http.client, sys
host, many = sys.argv[1], int(sys.argv[2])
def one(n):
    connection = http.client.HTTPConnection(host, timeout=15)
    connection.request('GET', '/', headers={'x-user': f'user{n}'})
    return connection.getresponse().read().decode().strip()
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print('\\n'.join(pool.map(one, range(many))))
";

fn name(n: usize) -> String {
    format!("laptop-{n}")
}

/// An app that answers with its name, on a port of its own.
fn app(n: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = name(n);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
        name.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut piece = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(n @ 1..) => head.extend_from_slice(&piece[..n]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// Who answered the callers of each.
fn answers(address: &str) -> Vec<String> {
    let mut callers = on_the_node();
    callers.args(["python3", "-c", CALLERS, address, &MANY.to_string()]);
    let said = finish(&mut callers, b"").ok();
    said.lines().map(str::to_owned).collect()
}

/// Does `what` for all, some at a time, and gives what came of each.
fn each<T: Send, R: Send>(all: Vec<T>, what: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut done = Vec::new();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let group: Vec<T> = all.by_ref().take(AT_A_TIME).collect();
        std::thread::scope(|scope| {
            let what = &what;
            let started: Vec<_> = group
                .into_iter()
                .map(|one| scope.spawn(move || what(one)))
                .collect();
            done.extend(started.into_iter().map(|one| one.join().unwrap()));
        });
    }
    done
}

/// Puts other people's claims on record beside the only one, until there are as many as may be.
fn fill_up(team: &Team) {
    let origin = ["get", "services", "-l", "kdev.dev/origin-of", "-o", "name"];
    let origin = team.place.site.kubectl(&origin).unwrap();
    let origin = origin.trim().trim_start_matches("service/");
    let claims = team.place.site.field(
        &format!("service/{origin}"),
        r".metadata.annotations.kdev\.dev/claims",
    );
    let mut claims: Vec<Value> = serde_json::from_str(&claims).unwrap();
    assert_eq!(claims.len(), 1);
    for n in 1..MOST {
        let mut other = claims[0].clone();
        other["id"] = json!(format!("other-{n}"));
        let shown = other.to_string().replace("user0", &format!("user{n}"));
        claims.push(serde_json::from_str(&shown).unwrap());
    }
    let patch =
        json!({"metadata": {"annotations": {"kdev.dev/claims": json!(claims).to_string()}}});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(patch.to_string().as_bytes()).unwrap();
    let file = file.path().to_str().unwrap();
    let patch = [
        "patch",
        "service",
        origin,
        "--type=merge",
        "--patch-file",
        file,
    ];
    team.place.site.kubectl(&patch).unwrap();
}

/// The memory of each relay pod.
fn memory(team: &Team) -> Vec<Memory> {
    let pods = team.place.site.await_relays(2);
    let of = |pod: &String| Pod::find(&team.place.site.0, pod).memory();
    pods.iter().map(of).collect()
}

#[test]
#[ignore = "needs the lab"]
fn two_hundred_and_fifty_people_are_on_one_service() {
    if lab::leaves_out_long() {
        return;
    }
    let team = Team::set_up("many", true);
    let (before, orders) = (team.objects(), team.address("orders"));
    println!("before: {}, {}", memory(&team)[0], memory(&team)[1]);
    let start = |n: usize| {
        let (header, to) = (format!("x-user: user{n}"), app(n).to_string());
        let args = ["orders", "--header", &header, "--to", &to];
        Intercept::attempt(&mut command(&team, &format!("user{n}"), &args))
            .unwrap_or_else(|refused| panic!("{n}: {refused:?}"))
    };
    let begun = Instant::now();
    let live = each((0..MANY).collect(), start);
    println!("{MANY} live after {:?}", begun.elapsed());
    std::thread::sleep(LAG);
    let begun = Instant::now();
    let said = answers(&orders);
    println!("{MANY} called in {:?}", begun.elapsed());
    let wanted: Vec<_> = (0..MANY).map(name).collect();
    assert_eq!(said, wanted);
    assert!(from_a_pod(&call(&orders, &[])));
    for memory in memory(&team) {
        println!("with {MANY} tunnels: {memory}");
        assert!(memory.peak.unwrap_or(memory.resident) < MEMORY_LIMIT);
    }

    let begun = Instant::now();
    each(live, Intercept::end);
    println!("all ended after {:?}", begun.elapsed());
    let mut restore = team.place.command(&["restore", "--force"]);
    finish(&mut restore, b"").ok();
    assert!(answers(&orders).iter().all(|answer| from_a_pod(answer)));
    assert_as_before(&team, &before);
}

#[test]
#[ignore = "needs the lab"]
fn one_more_than_five_hundred_is_refused_with_the_number() {
    if lab::leaves_out_long() {
        return;
    }
    let team = Team::set_up("most", true);
    let (before, to) = (team.objects(), app(0).to_string());
    let with = |n: usize| format!("x-user: user{n}");
    let mut first = command(
        &team,
        "user0",
        &["orders", "--header", &with(0), "--to", &to],
    );
    let first = Intercept::attempt(&mut first).unwrap_or_else(|refused| panic!("{refused:?}"));
    fill_up(&team);
    let one_more = ["orders", "--header", &with(MOST), "--to", &to];
    let refused = Intercept::attempt(&mut command(&team, "late", &one_more));
    let (code, said) = refused.err().expect("more than there may be");
    println!("{said}");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("501") && said.contains("500"), "{said}");
    let address = team.address("orders");
    assert_eq!(call(&address, &["-H", &with(0)]), name(0));
    first.end();
    let mut restore = team.place.command(&["restore", "--force"]);
    finish(&mut restore, b"").ok();
    assert!(from_a_pod(&call(&address, &["-H", &with(0)])));
    assert_as_before(&team, &before);
}
