//! What a person reads in a terminal, and does with it.

use std::process::Command;
use std::time::{Duration, Instant};

use super::away::{app_on, free};
use super::call;
use super::session::LAG;
use crate::callers::on_the_node;
use crate::program::{Running, finish, kdev_binary};
use crate::team::Team;

/// How long words may take to appear.
const SHOWN: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(20);

/// Waits until something that is printed or said contains `words`, and gives all of it.
fn shows(running: &Running, words: &str) -> String {
    let begun = Instant::now();
    loop {
        let all = running.shown() + &running.said();
        if all.contains(words) {
            return all;
        }
        assert!(begun.elapsed() < SHOWN, "no {words:?} in {all}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a line of a shell.
fn line(command: &mut Command, line: &str) -> String {
    finish(command.args(["sh", "-c", line]), b"")
        .ok()
        .trim()
        .to_owned()
}

#[test]
#[ignore = "needs the lab"]
fn a_terminal_shows_what_it_takes_to_go_on() {
    let team = Team::set_up("terminal", true);
    let (namespace, orders) = (team.place.site.0.clone(), team.address("orders"));
    let port = free();
    let to = port.to_string();
    let mut command = team
        .place
        .command(&["intercept", "orders:http", "--to", &to]);
    command.args(["--header", "x-user: ann", "--path-prefix", "/it's;here"]);
    let running = Running::spawn(command.env("KDEV_OWNER", "ann"));
    let shown = shows(&running, "Ctrl-C gives it back.");
    println!("{shown}");
    for words in [
        &format!("orders.{namespace} port 80: requests with "),
        "x-user: ann",
        "--path-prefix '/it",
        &format!("come to localhost:{to} (claim "),
        ", ann)",
        "does not answer yet",
        "start it, or correct --to",
        "--drain",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    assert!(!shown.contains('\x1b'), "colours into a pipe: {shown:?}");
    let ready = shown
        .lines()
        .find_map(|line| line.trim().strip_prefix("try "));
    let ready = ready.unwrap().trim();
    let curl = &ready[ready.find("curl").unwrap()..];

    // Nobody listens: whoever calls is told, and so is who looks at the terminal.
    std::thread::sleep(LAG);
    let by_address = format!("{curl} -sS -m 10 --resolve orders:80:{orders}");
    let told = line(&mut on_the_node(), &by_address);
    assert!(told.contains(&format!("localhost:{to}")), "{told}");
    shows(&running, "callers get a 502");
    shows(&running, "  502  ");

    let app = app_on(port);
    assert_eq!(line(&mut on_the_node(), &by_address), app.name);
    println!("{:?}", shows(&running, "  200  ").lines().last());
    // The line as it stands, by whoever has kdev and these credentials.
    let file = team.place.account.kubeconfig();
    let line_of_a_shell = format!(
        "kdev() {{ '{}' --kubeconfig '{}' \"$@\"; }}; {ready} -sS -m 10",
        kdev_binary().to_str().unwrap(),
        file.display(),
    );
    assert_eq!(line(&mut Command::new("env"), &line_of_a_shell), app.name);
    assert!(super::from_a_pod(&call(&orders, &[])));
    let shown = running.shown();
    running.interrupt(0, END_LIMIT);
    println!("{shown}");
}
