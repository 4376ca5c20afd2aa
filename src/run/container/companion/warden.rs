//! The process that removes companions where kdev could not: killed, or gone before the containers.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::LABEL;
use crate::run::container::compose::PROJECT;
use crate::run::container::{command, engine};

/// The first argument of kdev that makes it a warden.
const WARDEN: &str = "__warden";
/// What happens to the user's containers when kdev is gone: they are ended, or followed to their end.
const END: &str = "end";
const FOLLOW: &str = "follow";
/// How often is looked for what the engine's own command was about to start.
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often is looked whether a container that is followed is there.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// Looks in a row without one, after which none comes back: a restart takes less.
const GONE_AFTER: usize = 2;
/// How often an engine that does not answer is asked, every [`FOLLOW_EVERY`]: it may be restarting.
const ASKS: usize = 300;
/// How the engine removes companions.
const REMOVE: &[&str] = &["rm", "-f", "-v"];
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
    /// What the labels of the companions and of the user's containers say.
    pub(in crate::run::container) session: &'a str,
    /// The project whose networks the companions are part of, or nothing.
    pub(in crate::run::container) project: &'a str,
    /// The image that was made for the companions, or nothing.
    pub(in crate::run::container) image: &'a str,
    /// A folder that is kdev's own, or nothing.
    pub(in crate::run::container) folder: &'a Path,
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
            .args([WARDEN, what, watched.session])
            .args([watched.project, watched.image])
            .arg(watched.folder)
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
        session,
        project,
        image,
        folder,
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
        session: text(session),
        project: text(project),
        image: text(image),
    };
    if said.is_none() && !folder.is_empty() {
        // What is not there needs no removing.
        let _ = fs::remove_dir_all(folder);
    }
    let follows = said == Some(Left::Follow.word()) || (said.is_none() && what == FOLLOW);
    Some(work.all(follows, said.is_none()).map_or(1, |()| 0))
}

struct Work<'a> {
    engine: Engine<'a>,
    session: String,
    project: String,
    image: String,
}

impl Work<'_> {
    /// `None` where the engine is gone.
    fn all(&self, follows: bool, ends: bool) -> Option<()> {
        match (follows, ends) {
            (true, _) => self.follow()?,
            (false, true) => self.end()?,
            (false, false) => {}
        }
        self.remove()
    }

    /// Waits until none of the user's containers runs.
    fn follow(&self) -> Option<()> {
        let mut gone = 0;
        while gone < GONE_AFTER {
            sleep(FOLLOW_EVERY);
            match known(|| self.users())?.is_empty() {
                true => gone += 1,
                false => gone = 0,
            }
        }
        Some(())
    }

    /// Ends the user's containers.
    fn end(&self) -> Option<()> {
        for _ in 0..LOOKS {
            // Each in the time that it is given.
            let users = known(|| self.users())?;
            self.engine.act(&["stop"], &users);
            // After those, which may have a last word for a database; and so that nothing more is
            // started in its network.
            let own = known(|| self.own())?;
            self.engine.act(REMOVE, &own);
            sleep(LOOK_EVERY);
        }
        Some(())
    }

    /// Removes the companions, and what they alone kept: the networks of a project that is gone
    /// otherwise, since Compose leaves those that are in use.
    fn remove(&self) -> Option<()> {
        for _ in 0..LOOKS {
            let own = known(|| self.own())?;
            if own.is_empty() {
                break;
            }
            self.engine.act(REMOVE, &own);
        }
        if !self.project.is_empty() {
            let label = format!("label={PROJECT}={}", self.project);
            let there = known(|| self.engine.ids(&["ps", "-aq", "--filter", &label]))?;
            if there.is_empty() {
                let listed = ["network", "ls", "-q", "--filter", &label];
                let networks = known(|| self.engine.ids(&listed))?;
                self.engine.act(&["network", "rm"], &networks);
            }
        }
        if !self.image.is_empty() {
            // One that another session uses stays.
            self.engine.act(&["rmi"], std::slice::from_ref(&self.image));
        }
        Some(())
    }

    /// The user's containers that run.
    fn users(&self) -> Option<Vec<String>> {
        self.list("-q", command::LABEL)
    }

    fn own(&self) -> Option<Vec<String>> {
        self.list("-aq", LABEL)
    }

    fn list(&self, which: &str, label: &str) -> Option<Vec<String>> {
        let filter = format!("label={label}={}", self.session);
        self.engine.ids(&["ps", which, "--filter", &filter])
    }
}

/// What the engine answers, once it does. A failure is no answer: an engine that restarts still has
/// all of it.
fn known(ask: impl Fn() -> Option<Vec<String>>) -> Option<Vec<String>> {
    for _ in 0..ASKS {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        sleep(FOLLOW_EVERY);
    }
    None
}

struct Engine<'a> {
    program: &'a OsStr,
    globals: &'a [OsString],
}

impl Engine<'_> {
    /// What a command says, where it succeeds.
    fn tell(&self, args: &[&str], ids: &[String]) -> Option<String> {
        let mut command = Command::new(self.program);
        command.args(self.globals).args(args).args(ids);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn ids(&self, args: &[&str]) -> Option<Vec<String>> {
        let listed = self.tell(args, &[])?;
        Some(listed.split_whitespace().map(str::to_owned).collect())
    }

    /// Does something to whatever has those ids. What is gone meanwhile is no trouble.
    fn act(&self, args: &[&str], ids: &[String]) {
        if !ids.is_empty() {
            self.tell(args, ids);
        }
    }
}
