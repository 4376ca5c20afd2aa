//! The process that removes companions where kdev could not: killed, or gone before the containers.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::run::container::compose::PROJECT;
use crate::run::container::engine;

/// The first argument of kdev that makes it a warden.
const WARDEN: &str = "__warden";
/// What happens to the user's containers when kdev is gone: they are ended, or followed to their end.
const END: &str = "end";
const FOLLOW: &str = "follow";
/// Seconds that a container has to end by itself.
const GRACE: &str = "3";
/// How often is looked for a container that the engine's own command was about to start.
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often is looked whether a container that is followed is there.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// Looks in a row without one, after which none comes back: a restart takes less.
const GONE_AFTER: usize = 2;
/// How long removing all may be waited for, and how often is looked.
const REMOVE_LIMIT: Duration = Duration::from_secs(15);
const REMOVE_EVERY: Duration = Duration::from_millis(20);

/// What is left to do when kdev ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run::container) enum Left {
    /// To remove the companions.
    Remove,
    /// The same, once the user's containers have ended.
    Follow,
}

impl Left {
    fn word(self) -> u8 {
        match self {
            Self::Remove => b'r',
            Self::Follow => b'f',
        }
    }
}

/// What a warden watches over.
#[derive(Debug)]
pub(in crate::run::container) struct Watched<'a> {
    pub(in crate::run::container) engine: &'a engine::Engine,
    /// Whether the user's containers go on without kdev.
    pub(in crate::run::container) follows: bool,
    /// The label of the companions.
    pub(in crate::run::container) own: String,
    /// The label of the user's containers.
    pub(in crate::run::container) users: String,
    /// The project whose networks the companions are part of, or nothing.
    pub(in crate::run::container) project: &'a str,
    /// The image that was made for the companions, or nothing.
    pub(in crate::run::container) image: &'a str,
}

/// A warden that runs. Dropping it leaves it to its work.
#[derive(Debug)]
pub(in crate::run::container) struct Warden(Child);

impl Warden {
    /// Starts one.
    pub(in crate::run::container) fn begin(watched: &Watched<'_>) -> io::Result<Self> {
        let what = if watched.follows { FOLLOW } else { END };
        let mut command = Command::new(own_program()?);
        command
            .args([WARDEN, what, &watched.own, &watched.users])
            .args([watched.project, watched.image])
            .arg(&watched.engine.program)
            .args(&watched.engine.globals)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C is not for it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map(Self)
    }

    /// Tells it what is left to do.
    pub(in crate::run::container) fn dismiss(mut self, left: Left) {
        self.tell(left);
    }

    /// Has it remove all, and waits until it has, for at most [`REMOVE_LIMIT`].
    pub(in crate::run::container) async fn remove(mut self) {
        self.tell(Left::Remove);
        let until = Instant::now() + REMOVE_LIMIT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            tokio::time::sleep(REMOVE_EVERY).await;
        }
    }

    fn tell(&mut self, left: Left) {
        if let Some(mut stdin) = self.0.stdin.take() {
            // One that is gone needs no word.
            let _ = stdin.write_all(&[left.word()]);
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
    let [
        name,
        what,
        own,
        users,
        project,
        image,
        program,
        globals @ ..,
    ] = args
    else {
        return None;
    };
    if name != WARDEN {
        return None;
    }
    let mut word = [0];
    // The end of input is the end of kdev.
    let said = matches!(io::stdin().read(&mut word), Ok(1)).then_some(word[0]);
    let text = |arg: &OsString| arg.to_string_lossy().into_owned();
    let work = Work {
        engine: Engine { program, globals },
        own: text(own),
        users: text(users),
        project: text(project),
        image: text(image),
    };
    if said == Some(Left::Follow.word()) || (said.is_none() && what == FOLLOW) {
        work.follow();
    } else if said.is_none() {
        work.end();
    }
    work.remove();
    Some(0)
}

struct Work<'a> {
    engine: Engine<'a>,
    own: String,
    users: String,
    project: String,
    image: String,
}

impl Work<'_> {
    /// Waits until none of the user's containers runs.
    fn follow(&self) {
        let mut gone = 0;
        while gone < GONE_AFTER {
            sleep(FOLLOW_EVERY);
            match self.engine.list("-q", &self.users).is_empty() {
                true => gone += 1,
                false => gone = 0,
            }
        }
    }

    /// Ends the user's containers.
    fn end(&self) {
        // First, so that nothing more is started in its network.
        self.engine.remove(&self.engine.list("-aq", &self.own));
        for _ in 0..LOOKS {
            let ids = self.engine.list("-q", &self.users);
            if !ids.is_empty() {
                self.engine.tell(&["stop", "-t", GRACE], &ids);
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Removes the companions, and what they alone kept: the networks of a project that is gone
    /// otherwise, since Compose leaves those that are in use.
    fn remove(&self) {
        self.engine.remove(&self.engine.list("-aq", &self.own));
        if !self.project.is_empty() {
            let label = format!("{PROJECT}={}", self.project);
            if self.engine.list("-aq", &label).is_empty() {
                let filter = format!("label={label}");
                let networks = self
                    .engine
                    .ids(&["network", "ls", "-q", "--filter", &filter]);
                if !networks.is_empty() {
                    self.engine.tell(&["network", "rm"], &networks);
                }
            }
        }
        if !self.image.is_empty() {
            // One that another session uses stays.
            self.engine.tell(&["rmi", &self.image], &[]);
        }
    }
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

    fn ids(&self, args: &[&str]) -> Vec<String> {
        let listed = self.tell(args, &[]).unwrap_or_default();
        listed.split_whitespace().map(str::to_owned).collect()
    }

    /// The containers with a label.
    fn list(&self, which: &str, label: &str) -> Vec<String> {
        self.ids(&["ps", which, "--filter", &format!("label={label}")])
    }

    fn remove(&self, ids: &[String]) {
        if !ids.is_empty() {
            self.tell(&["rm", "-f", "-v"], ids);
        }
    }
}
