//! Programs that do not say whose their requests are, as browsers: kdev's proxy says it for them.

use std::process::Command;
use std::time::{Duration, Instant};

use super::app::App;
use super::session::Intercept;
use super::{call, from_a_pod};
use crate::program::{Running, finish};
use crate::team::Team;

/// How long the watch of Services, and the nodes, may lag behind an intercept.
const KNOWN: Duration = Duration::from_secs(10);

/// Who answers three requests on one connection through a proxy, in curl's way of `flags`.
fn three(proxy: &Running, scheme: &str, flags: &[&str]) -> String {
    let mut curl = Command::new("curl");
    let address = format!("{scheme}://{}", proxy.proxy());
    curl.args(["-sS", "-m", "10", "--noproxy", "", "-x", &address]);
    curl.args(flags).args(["http://orders/"; 3]);
    finish(&mut curl, b"").ok()
}

#[test]
#[ignore = "needs the lab"]
fn a_browser_needs_no_extension() {
    let team = Team::set_up("mine", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let connect = |owner: &str, args: &[&str]| {
        let mut command = team.place.command(&["connect", "--json"]);
        Running::start(command.env("KDEV_OWNER", owner).args(args))
    };
    let anns = connect("ann", &[]);
    let others = [
        connect("bob", &[]),
        connect("ann", &["--mine-header", "off"]),
    ];
    let ways = [
        ("http", &[][..]),
        ("http", &["--proxytunnel"]),
        ("socks5h", &[]),
    ];
    let of_ann = |answer: &str| answer.matches(&ann.name).count() == 3;
    for (scheme, flags) in ways {
        assert!(from_a_pod(&three(&anns, scheme, flags)), "{scheme}");
    }

    let live = Intercept::live(&team, &ann, &["orders:http", "--mine"]);
    let began = Instant::now();
    for (scheme, flags) in ways {
        loop {
            let answer = three(&anns, scheme, flags);
            if of_ann(&answer) {
                break;
            }
            assert!(began.elapsed() < KNOWN, "{scheme} {flags:?}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    println!("all ways lead to the app after {:?}", began.elapsed());
    for _ in 0..10 {
        for (scheme, flags) in ways {
            let answer = three(&anns, scheme, flags);
            assert!(of_ann(&answer), "{scheme} {flags:?}: {answer}");
            for other in &others {
                let answer = three(other, scheme, flags);
                assert!(!answer.contains(&ann.name), "{scheme} {flags:?}: {answer}");
            }
        }
        assert!(from_a_pod(&call(&orders, &[])));
    }

    live.end();
    let began = Instant::now();
    while three(&anns, "http", &[]).contains(&ann.name) {
        assert!(began.elapsed() < KNOWN);
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = anns.stop();
    let note = "requests to orders carry baggage kdev=ann from now on";
    assert_eq!(said.matches(note).count(), 1, "{said}");
    for other in others {
        let said = other.stop();
        assert!(!said.contains("baggage"), "{said}");
    }
}
