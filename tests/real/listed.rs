//! What `scenarios.txt` says of scenarios that are there.

use std::collections::BTreeSet;
use std::process::Command;

const LIST: &str = include_str!("scenarios.txt");

/// A line for a scenario that is gone, or has another name now, says nothing: what has taken its place
/// runs alone.
#[test]
fn every_line_is_about_a_scenario() {
    let listed = Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--ignored", "--format=terse"])
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let scenarios = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    let scenarios: BTreeSet<&str> = scenarios.collect();
    assert!(scenarios.len() > 100, "{listed}");
    let mut names = BTreeSet::new();
    for line in LIST.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        assert!(scenarios.contains(name), "no scenario is called {name}");
        assert!(names.insert(name), "{name} is there twice");
        let marks: Vec<&str> = words.collect();
        let known = [&["beside"][..], &["full"], &["beside", "full"]];
        assert!(known.contains(&&*marks), "{line:?}: beside, full or both");
    }
}
