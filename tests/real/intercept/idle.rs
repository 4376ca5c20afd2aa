//! Apps and pods that close idle connections without a word.

use std::path::Path;
use std::process::Command;

use super::app::{App, SCRIPT};
use super::kinds::caller;
use super::pods::deploy;
use super::session::{Intercept, LAG};
use crate::program::finish;
use crate::team::Team;

const ANNS: &str = "x-user: ann";
/// After how many milliseconds they close.
const IDLE: &str = "40";
/// How many requests come, each about that long after the one before.
const POSTS: &str = "500";

#[test]
#[ignore = "needs the lab"]
fn posts_around_the_end_of_idle_connections_arrive_once() {
    let team = Team::set_up("idle", true);
    let folder = Path::new(SCRIPT).parent().unwrap();
    let command = format!("exec python3 /from/idle.py $(hostname) {IDLE} 8080");
    let ports = [("http", 80, 8080)];
    deploy(&team, "echo", &command, folder.to_str().unwrap(), &ports);
    let address = team.address("echo");
    let mut app = Command::new("python3");
    app.arg(folder.join("idle.py"))
        .args(["laptop-of-ann", IDLE]);
    let ann = App::start("ann", app);
    let live = Intercept::live(&team, &ann, &["echo:http", "--header", ANNS]);
    std::thread::sleep(LAG);
    let posts = |user: &str| {
        let said = caller(
            "posts",
            &address,
            &["80", user, &format!("x-gap: {IDLE}")],
            b"",
        );
        println!("{user}: {said}");
        said.trim().to_owned()
    };
    assert_eq!(posts(ANNS), format!("200: {POSTS}"));
    let mut served = Command::new("curl");
    served.args(["-sS", &format!("127.0.0.1:{}/served", ann.port)]);
    assert_eq!(finish(&mut served, b"").ok().trim(), format!("{POSTS} 0"));
    // Nobody meets with what they would not meet without the relay.
    assert_eq!(posts("x-user: bob"), format!("200: {POSTS}"));
    live.end();
}
