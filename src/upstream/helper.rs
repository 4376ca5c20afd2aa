//! A program that logs in to a proxy for kdev.
//!
//! # The contract
//!
//! The command line is run by `/bin/sh -c`. In its environment stand `KDEV_PROXY_URL` (the proxy
//! without user and password), `KDEV_PROXY_HOST` and `KDEV_PROXY_CHALLENGE` (the values of the
//! proxy's `Proxy-Authenticate` headers, one a line). The same comes on its standard input:
//!
//! ```text
//! proxy=http://proxy.corp:3128
//! host=proxy.corp
//! challenge=Negotiate
//! challenge=NTLM
//! (an empty line)
//! ```
//!
//! It answers with one line, the value of `Proxy-Authorization`: `Basic dXNlcjpwYXNz`,
//! `Bearer …`, `Negotiate YII…`. Where the proxy answers that with another 407 on the same
//! connection, as NTLM does, a helper that is still there gets the next block, with the proxy's
//! message as `challenge=NTLM TlRMTVNT…`, and answers with another line. One that ends after its
//! first line has nothing to add. When the connection is through, its input is closed; it is
//! killed when it does not end then.
//!
//! Each line may take [`HELPER_TIMEOUT`]. What is not bound to a connection or a moment (Basic,
//! Bearer) is kept and sent until the proxy refuses it; Negotiate, NTLM, Kerberos and Digest are
//! asked for anew for every connection.

use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::HELPER_TIMEOUT;
use super::url::ProxyUrl;

/// Longest line that a helper may print: a Kerberos ticket of somebody in many groups has some
/// 48 KiB in base64, and proxies take no longer header.
const MAX_LINE: u64 = 64 << 10;
/// How much of what a failed helper said is read and shown.
const SHOWN_STDERR: u64 = 2000;

/// A helper's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    command: String,
}

impl Helper {
    /// A helper that `/bin/sh -c` runs; `None` for a blank command line.
    #[must_use]
    pub fn new(command: &str) -> Option<Self> {
        let command = command.trim();
        (!command.is_empty()).then(|| Self {
            command: command.to_owned(),
        })
    }

    /// The command line.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Starts a conversation about one connection. Its first question is in the environment too.
    pub(super) fn start(
        &self,
        proxy: &ProxyUrl,
        challenges: &[String],
    ) -> Result<Conversation, String> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &self.command])
            .env("KDEV_PROXY_URL", proxy.to_string())
            .env("KDEV_PROXY_HOST", proxy.address.host.to_string())
            .env("KDEV_PROXY_CHALLENGE", challenges.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own children are to end with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("did not start: {e}"))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = pipes else {
            return Err("did not start: it has no pipes".to_owned());
        };
        Ok(Conversation {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }
}

/// A running helper. Dropping it ends the helper and all that it started.
pub(super) struct Conversation {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Conversation {
    /// Asks for the answer to `challenges`; the error says what the helper did instead.
    pub(super) async fn ask(
        &mut self,
        proxy: &ProxyUrl,
        challenges: &[String],
    ) -> Result<String, String> {
        match tokio::time::timeout(HELPER_TIMEOUT, self.exchange(proxy, challenges)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "did not answer within {} s and was killed",
                HELPER_TIMEOUT.as_secs()
            )),
        }
    }

    async fn exchange(
        &mut self,
        proxy: &ProxyUrl,
        challenges: &[String],
    ) -> Result<String, String> {
        let mut question = format!("proxy={proxy}\nhost={}\n", proxy.address.host);
        for challenge in challenges {
            question.push_str(&format!("challenge={challenge}\n"));
        }
        question.push('\n');
        // One that prints without reading is gone already; its answer counts.
        let _ = self.stdin.write_all(question.as_bytes()).await;
        let mut line = Vec::new();
        let mut limited = (&mut self.stdout).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut line).await;
        read.map_err(|e| format!("cannot be read from: {e}"))?;
        if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            return Err(format!("printed a line of more than {MAX_LINE} bytes"));
        }
        let line = String::from_utf8(line).map_err(|_| "printed no text".to_owned())?;
        let line = line.trim();
        if line.is_empty() {
            return Err(self.why_nothing().await);
        }
        // What goes into a header must not begin another one.
        let sound = line.bytes().all(|b| (0x20..0x7f).contains(&b)) && line.contains(' ');
        if !sound {
            return Err("printed something else than `SCHEME VALUE`, \
                        the value of a Proxy-Authorization header"
                .to_owned());
        }
        Ok(line.to_owned())
    }

    /// What a helper says that ends without an answer.
    async fn why_nothing(&mut self) -> String {
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Best effort: that it gave nothing is known.
            let _ = stderr.take(SHOWN_STDERR).read_to_end(&mut said).await;
        }
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        let ended = match self.child.wait().await {
            Ok(status) if !status.success() => format!("failed with {status}"),
            _ => "printed nothing".to_owned(),
        };
        if said.is_empty() {
            ended
        } else {
            format!("{ended}: {said}")
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Its group has its process id, until it was waited for.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
