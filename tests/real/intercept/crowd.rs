//! Many callers at the same moment.

use super::app::App;
use super::from_a_pod;
use super::kinds::caller;
use super::session::{Intercept, LAG};
use crate::team::Team;

/// How many connections at once a crowd is.
const CROWD: usize = 100;

/// A crowd, each second one of which is ann's: nobody fails, and everybody hears whom they should.
pub(super) fn assert_right(address: &str, app: &App, of_a_pod: impl Fn(&str) -> bool) {
    let said = caller(
        "crowd",
        address,
        &["80", &format!("x-user: {}", app.owner)],
        b"",
    );
    let all: Vec<(f64, &str, &str)> = said
        .lines()
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let took = words.next().unwrap().parse().unwrap();
            (took, words.next().unwrap(), words.next().unwrap())
        })
        .collect();
    assert_eq!(all.len(), CROWD, "{said}");
    for (n, (_, status, answer)) in all.iter().enumerate() {
        assert_eq!(*status, "200", "{n}: {said}");
        match n % 2 {
            0 => assert!(of_a_pod(answer), "{n}: {said}"),
            _ => assert_eq!(*answer, app.name, "{n}: {said}"),
        }
    }
    let slowest = all.iter().map(|(took, ..)| *took).fold(0.0, f64::max);
    println!("{CROWD} connections at once: all right, the slowest after {slowest:.3} s");
}

#[test]
#[ignore = "needs the lab"]
fn a_hundred_at_once_are_all_served() {
    let team = Team::set_up("crowd", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let live = Intercept::live(&team, &ann, &["orders", "--header", "x-user: ann"]);
    std::thread::sleep(LAG);
    for _ in 0..5 {
        assert_right(&orders, &ann, from_a_pod);
    }
    live.end();
}
