//! The stream to a companion: standard input and output of a process of the engine's.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::companion::{FAILED, GREETING, READY};
use crate::io::{Io, pass_writes};

/// How long the companion may take until it catches: an engine starts a process in some ten
/// milliseconds.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);
/// Most bytes of its first line.
const LINE: usize = 1024;

/// A stream to a companion. The process under it ends with it.
#[derive(Debug)]
pub struct Way {
    output: ChildStdout,
    input: ChildStdin,
    errors: Option<ChildStderr>,
    _child: Child,
}

/// Why there is no way.
#[derive(Debug)]
pub(super) enum Closed {
    /// The companion says that it does not catch.
    Failed(String),
    /// It said nothing; this is what the engine said, or what is known.
    Silent(String),
}

impl Way {
    /// Starts `command`, and waits until the companion catches.
    pub(super) async fn open(mut command: Command) -> Result<Self, Closed> {
        let broken = |error: io::Error| Closed::Silent(format!("it does not start: {error}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(broken)?;
        let (output, input) = (child.stdout.take(), child.stdin.take());
        let errors = child.stderr.take();
        let Some((output, input)) = output.zip(input) else {
            return Err(broken(io::ErrorKind::BrokenPipe.into()));
        };
        let mut way = Self {
            output,
            input,
            errors,
            _child: child,
        };
        let said = match timeout(BEGIN_LIMIT, way.line()).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                let last = last_words(way.errors.take()).await;
                return Err(last.map_or_else(|| broken(error), Closed::Silent));
            }
            Err(_) => {
                let limit = BEGIN_LIMIT.as_secs();
                let why = format!("its program said nothing within {limit} s");
                return Err(Closed::Failed(why));
            }
        };
        let said = said.strip_prefix(GREETING).map(str::trim);
        let said = said.unwrap_or_default();
        if said == READY {
            return Ok(way);
        }
        Err(Closed::Failed(match said.strip_prefix(FAILED) {
            Some(why) => why.trim().to_owned(),
            None => "what answers in it is not kdev's program".to_owned(),
        }))
    }

    /// What the companion says of its troubles, once. It has to be read, or nobody is there to say it to.
    pub fn troubles(&mut self) -> Option<ChildStderr> {
        self.errors.take()
    }

    /// The first line, and no byte more.
    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while line.len() < LINE {
            match self.output.read_u8().await? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// The last line that a process said.
async fn last_words(errors: Option<ChildStderr>) -> Option<String> {
    let mut said = Vec::new();
    let mut some = errors?.take(64 << 10);
    // What came is enough.
    let _ = timeout(Duration::from_secs(1), some.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(last.trim().to_owned())
}

impl Io for Way {}

impl AsyncRead for Way {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Way {
    pass_writes!(input);
}
