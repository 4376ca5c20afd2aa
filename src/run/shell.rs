//! An interactive shell whose prompt says where it is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// The shell of who has set none.
const PLAIN: &str = "/bin/sh";
/// The variable by which a prompt of the user's own can say where it is.
const PROMPT: &str = "KDEV_PROMPT";

/// A shell to run.
#[derive(Debug)]
pub struct Shell {
    /// Its command line.
    pub argv: Vec<OsString>,
    /// Variables for it.
    pub env: Vec<(String, String)>,
    /// What it reads when it starts, by a descriptor that stands in its command line.
    pub reads: Option<OwnedFd>,
}

impl Shell {
    /// The shell `program`, or the system's where there is none, with `place` in its prompt.
    ///
    /// # Errors
    /// When what it shall read cannot be written.
    pub fn new(program: Option<OsString>, place: &str) -> io::Result<Self> {
        let program = program.filter(|program| !program.is_empty());
        let program = program.unwrap_or_else(|| PLAIN.into());
        let name = Path::new(&program).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        // What stands in single quotes, and in a prompt, means nothing else.
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-_./:@ ".contains(*c);
        let place: String = place.chars().filter(plain).collect();
        let prompt = format!("(kdev {place}) ");
        let mut env = vec![(PROMPT.to_owned(), prompt.clone())];
        let mut argv = vec![program];
        let mut reads = None;
        match name.as_str() {
            "bash" => {
                let file = read(&format!(
                    "[ ! -f ~/.bashrc ] || . ~/.bashrc\nPS1='{prompt}'\"$PS1\"\n"
                ))?;
                argv.push("--rcfile".into());
                argv.push(format!("/dev/fd/{}", file.as_raw_fd()).into());
                reads = Some(file);
            }
            "fish" => {
                argv.push("-C".into());
                argv.push(
                    format!(
                        "functions -c fish_prompt _kdev_prompt; function fish_prompt; echo -n \
                         '{prompt}'; _kdev_prompt; end"
                    )
                    .into(),
                );
            }
            // The file that it reads sets a prompt anew at most places, and then $KDEV_PROMPT is left.
            _ => env.push(("PS1".to_owned(), format!("{prompt}$ "))),
        }
        Ok(Self { argv, env, reads })
    }
}

/// A descriptor from which `text` is read: it has room in a pipe.
fn read(text: &str) -> io::Result<OwnedFd> {
    let (reader, writer) = io::pipe()?;
    let mut writer = File::from(OwnedFd::from(writer));
    writer.write_all(text.as_bytes())?;
    Ok(reader.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_says_where_the_shell_is() {
        let of = |program: &str| Shell::new(Some(program.into()), "shop'; rm -rf $HOME").unwrap();
        let bash = of("/usr/bin/bash");
        assert_eq!(bash.argv[1], "--rcfile");
        let mut text = String::new();
        io::Read::read_to_string(&mut File::from(bash.reads.unwrap()), &mut text).unwrap();
        assert!(
            text.ends_with("PS1='(kdev shop rm -rf HOME) '\"$PS1\"\n"),
            "{text}"
        );
        assert_eq!(of("fish").argv.len(), 3);
        let plain = Shell::new(None, "shop").unwrap();
        assert_eq!(plain.argv, ["/bin/sh"]);
        assert!(
            plain
                .env
                .contains(&("PS1".to_owned(), "(kdev shop) $ ".to_owned()))
        );
    }
}
