//! Running a command to its end, for the suites on a simulated cluster.

use std::time::Duration;

use tokio::process::Command;

use crate::done::Done;

/// Longer than a command may take here.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Done {
    let output = tokio::time::timeout(LIMIT, command.output());
    let output = output.await.expect("it ends in time").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let done = Done {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    assert!(!done.err.contains("panicked"), "{done:?}");
    done
}
