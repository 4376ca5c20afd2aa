//! What a container prints while it asks.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::oneshot;

/// How much of what the container prints is read; it prints a line or two.
const MAX_PRINTED: u64 = 8 << 10;
/// What the container prints before it asks. One that never printed it did not even try, whatever
/// its exit code: there is no shell in the image, or its program is for another processor.
const ASKING: &str = "asking";
/// Parts of what programs say, in lower case, when a connection or the look-up of a name fails. What
/// fails with other words may have failed for a reason of its own.
const FAILURES: [&str; 11] = [
    "connect to",
    "refused",
    "timed out",
    "timeout",
    "unreachable",
    "no route",
    "prohibited",
    "resolve",
    "resolution",
    "bad address",
    "not known",
];

/// What a container printed.
pub(super) struct Said {
    /// Whether it came to ask.
    pub(super) asked: bool,
    /// The last line that tells of a connection or a look-up that failed.
    pub(super) failure: Option<String>,
    /// The last line of its errors.
    pub(super) last: String,
}

/// Reads what the container prints to its end, and tells `asks` once it is about to ask.
pub(super) async fn read(
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    asks: oneshot::Sender<()>,
) -> Said {
    let out = async {
        let mut asks = Some(asks);
        let mut lines = BufReader::new(out?.take(MAX_PRINTED)).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == ASKING
                && let Some(asks) = asks.take()
            {
                // Nobody listens where the container was heard already.
                let _ = asks.send(());
            }
        }
        asks.is_none().then_some(())
    };
    let err = async {
        let mut said = Vec::new();
        if let Some(err) = err
            && let Err(error) = err.take(MAX_PRINTED).read_to_end(&mut said).await
        {
            tracing::debug!(%error, "what the container says is lost");
        }
        said
    };
    let (asked, said) = tokio::join!(out, err);
    let said = String::from_utf8_lossy(&said);
    let mut lines = said.lines().rev().map(str::trim);
    let tells = |line: &&str| {
        let line = line.to_ascii_lowercase();
        FAILURES.iter().any(|part| line.contains(part))
    };
    Said {
        asked: asked.is_some(),
        failure: lines.clone().find(tells).map(str::to_owned),
        last: lines
            .find(|line| !line.is_empty())
            .unwrap_or_default()
            .to_owned(),
    }
}
