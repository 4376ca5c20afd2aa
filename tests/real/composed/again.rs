//! What comes after an earlier command of the same project, or in place of its end.

use std::process::Stdio;
use std::time::Duration;

use super::{Project, ended, folders, servers, signal, until};
use crate::joined::Laptop;
use crate::program::finish;

/// The containers of the user's that run.
fn running(project: &Project) -> String {
    project.compose(&["ps", "-q", "api", "worker"]).ok()
}

#[test]
#[ignore = "needs the lab"]
fn what_was_left_without_its_way_is_left_alone_or_brought_back() {
    let laptop = Laptop::new();
    let project = servers("18128");
    let up = ["up", "-d", "-t", "1", "api", "worker"];
    let start = || {
        let mut kdev = project.kdev(&laptop, &[], &up);
        let kdev = kdev.stderr(Stdio::null()).spawn().unwrap();
        project.sees_anew("of a project in the background");
        kdev
    };
    let mut first = start();
    signal(&first, "-INT");
    assert_eq!(ended(&mut first), Some(130));
    let before = running(&project);
    assert_eq!(before.lines().count(), 2, "{before}");
    let companions = project.companions();
    assert_eq!(companions.len(), 2);
    // Neither touched by a container beside them.
    let args = ["run", "--rm", "-T", "worker", "curl", "-sS", "http://web/"];
    let once = finish(&mut project.kdev(&laptop, &["-q"], &args), b"");
    assert!(once.ok().starts_with("web-"));
    assert_eq!(running(&project), before);
    assert_eq!(project.companions(), companions);
    // Brought back by the same command.
    let mut second = start();
    // One that would make another network for what that one serves, and loses nothing by it.
    let before = running(&project);
    let file = project.folder.path().join("docker-compose.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("18128", "18129")).unwrap();
    let refused = finish(&mut project.kdev(&laptop, &["-q"], &up), b"");
    assert!(
        refused.code != 0 && refused.err.contains("another kdev serves api"),
        "{refused:?}"
    );
    assert_eq!(running(&project), before);
    project.sees_anew("after another was refused");
    project.compose(&["down", "-t", "1"]);
    assert_eq!(ended(&mut second), Some(0));
    until("something is left", || project.left().is_empty());
}

#[test]
#[ignore = "needs the lab"]
fn an_end_before_the_project_runs_leaves_nothing() {
    let laptop = Laptop::new();
    for (how, delay) in [
        ("-INT", 200),
        ("-INT", 600),
        ("-INT", 1200),
        ("-KILL", 600),
        ("-KILL", 1200),
    ] {
        let project = servers("18130");
        let mut kdev = project.kdev(&laptop, &[], &["up", "-t", "1"]);
        let mut kdev = kdev
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        signal(&kdev, how);
        ended(&mut kdev);
        let gone = || folders(&kdev).is_empty() && project.companions().is_empty();
        until(&format!("{how} after {delay} ms"), gone);
        until("containers", || running(&project).is_empty());
        // Also what the engine's own command was about to make.
        std::thread::sleep(Duration::from_secs(1));
        assert!(gone(), "{how} after {delay} ms: {}", project.left());
        project.compose(&["down", "-t", "0"]).ok();
    }
}
