//! The process that removes a companion where kdev could not: killed, or gone before the container.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::label;
use crate::run::container::{ContainerRun, Plan};

/// The first argument of kdev that makes it a warden.
const WARDEN: &str = "__warden";
/// What happens to the user's containers when kdev is gone: they are ended, or followed to their end.
const END: &str = "end";
const FOLLOW: &str = "follow";
/// What is left to do when kdev ends in order: nothing, or to remove the companion.
pub(super) const NOTHING: u8 = b'.';
pub(super) const REMOVE: u8 = b'r';
/// Seconds that a container has to end by itself.
const GRACE: &str = "3";
/// How often is looked for a container that the engine's own command was about to start.
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often is looked whether a container that is followed is there.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// A warden that runs. Dropping it leaves it to its work.
#[derive(Debug)]
pub(super) struct Warden(Child);

impl Warden {
    /// Starts one for the companion of `session`.
    pub(super) fn begin(run: &ContainerRun, session: &str) -> io::Result<Self> {
        let what = if run.detached() { FOLLOW } else { END };
        let mut command = Command::new(own_program()?);
        command
            .args([WARDEN, what, session])
            .arg(&run.engine.program)
            .args(&run.engine.globals)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C is not for it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map(Self)
    }

    /// Tells it what is left to do.
    pub(super) fn dismiss(mut self, left: u8) {
        if let Some(mut stdin) = self.0.stdin.take() {
            // One that is gone needs no word.
            let _ = stdin.write_all(&[left]);
        }
        if left == NOTHING {
            let _ = self.0.wait();
        }
    }
}

/// This program, also after its file was replaced.
fn own_program() -> io::Result<OsString> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map(Into::into)
}

/// Does the work of a warden where `args`, the program's name excluded, ask for one. Gives the exit
/// code.
#[must_use]
pub fn helper(args: &[OsString]) -> Option<u8> {
    let [name, what, session, program, globals @ ..] = args else {
        return None;
    };
    if name != WARDEN {
        return None;
    }
    #[cfg(unix)]
    {
        // The end of the terminal is not its own. Fails where it leads a session already.
        let _ = nix::unistd::setsid();
    }
    let mut word = [0];
    // The end of input is the end of kdev.
    let said = matches!(io::stdin().read(&mut word), Ok(1)).then_some(word[0]);
    if said == Some(NOTHING) {
        return Some(0);
    }
    let engine = Engine { program, globals };
    let session = session.to_string_lossy();
    let (users, own) = (Plan::label(&session), label(&session));
    if said == Some(REMOVE) {
        engine.remove(&engine.list("-aq", &own));
        return Some(0);
    }
    if what == FOLLOW {
        while !engine.list("-q", &users).is_empty() {
            sleep(FOLLOW_EVERY);
        }
        engine.remove(&engine.list("-aq", &own));
        return Some(0);
    }
    // First, so that nothing more is started in its network.
    engine.remove(&engine.list("-aq", &own));
    for _ in 0..LOOKS {
        let ids = engine.list("-q", &users);
        if !ids.is_empty() {
            engine.tell(&["stop", "-t", GRACE], &ids);
        }
        sleep(LOOK_EVERY);
    }
    engine.remove(&engine.list("-aq", &own));
    Some(0)
}

struct Engine<'a> {
    program: &'a OsStr,
    globals: &'a [OsString],
}

impl Engine<'_> {
    fn tell(&self, args: &[&str], ids: &[String]) -> Option<String> {
        let mut command = Command::new(self.program);
        command.args(self.globals).args(args).args(ids);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        Some(String::from_utf8_lossy(&output.ok()?.stdout).into_owned())
    }

    /// The containers with a label.
    fn list(&self, which: &str, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let listed = self.tell(&["ps", which, "--filter", &filter], &[]);
        let listed = listed.unwrap_or_default();
        listed.split_whitespace().map(str::to_owned).collect()
    }

    fn remove(&self, ids: &[String]) {
        if !ids.is_empty() {
            self.tell(&["rm", "-f", "-v"], ids);
        }
    }
}
