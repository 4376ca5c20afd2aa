//! `kdev run --intercept`: a container that gets a Service's requests.

use std::time::{Duration, Instant};

use super::{assert_as_before, call, from_a_pod};
use crate::lab::{self, Container, TOOLS};
use crate::program::Running;
use crate::team::Team;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs the lab"]
fn a_containers_port_gets_what_comes_for_a_service() {
    if lab::leaves_out_long() {
        return;
    }
    let team = Team::set_up("container", true);
    let before = team.objects();
    let orders = team.address("orders");
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    for personal in [false, true] {
        let container = Container::name("intercepts");
        let (intercept, publish) = (format!("orders={port}"), format!("{port}:8080"));
        let mut command = team.place.command(&["run", "--intercept", &intercept]);
        if personal {
            command.args(["--header", "x-user: ann"]);
        }
        command.args([
            "--", "docker", "run", "--rm", "--pull", "never", "-p", &publish,
        ]);
        command.args(["--name", &container.0, TOOLS, "/opt/lab/peer"]);
        let mut running = Running::spawn(&mut command);
        let hears = || call(&orders, &["-H", "x-user: ann"]);
        let begun = Instant::now();
        let heard = loop {
            let heard = hears();
            // Until the container listens there is an answer that says so.
            if heard.starts_with("GET / ") {
                break heard;
            }
            assert!(begun.elapsed() < LIMIT, "{heard}: {}", running.said());
            assert_eq!(running.ended(), None, "{}", running.said());
            std::thread::sleep(Duration::from_millis(200));
        };
        println!("the container hears after {:?}", begun.elapsed());
        let heard = heard.to_ascii_lowercase();
        assert!(heard.contains("x-forwarded-for: "), "{heard}");
        assert!(heard.contains(&format!("host: {orders}")), "{heard}");
        assert_eq!(from_a_pod(&call(&orders, &[])), personal);

        lab::docker(&["kill", &container.0]).unwrap();
        let begun = Instant::now();
        let code = loop {
            if let Some(code) = running.ended() {
                break code;
            }
            assert!(begun.elapsed() < LIMIT, "{}", running.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        println!("ended after {:?}", begun.elapsed());
        assert_eq!(code, Some(137), "{}", running.said());
        assert!(from_a_pod(&hears()));
        assert_as_before(&team, &before);
    }
}
