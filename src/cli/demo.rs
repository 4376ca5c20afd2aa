//! `kdev demo`.

use clap::Args;

use super::output;
use crate::app;

const EXAMPLES: &str = "\
Examples:
  kdev demo          show the main jobs, then end
  kdev demo --keep   keep the simulated cluster up and say how to use it";

/// Show the main jobs in a simulated cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// Keep the simulated cluster up until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Fetch a URL through the proxy of the environment, in place of curl
    #[arg(long, hide = true, value_name = "URL", conflicts_with = "keep")]
    fetch: Option<String>,
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<u8> {
    match args.fetch {
        Some(url) => {
            let (code, body) = app::demo::fetch(&url).await?;
            output::data(&body)?;
            Ok(code)
        }
        // A reader that went away is no reason to stop.
        None => app::demo::run(args.keep, |text| drop(output::line(text))).await,
    }
}
