//! `kdev demo`.

use clap::Args;

use crate::app;

const EXAMPLES: &str = "\
Examples:
  kdev demo          shows the main jobs and ends by itself
  kdev demo --keep   leaves the simulated cluster up and says how to use it";

/// Show the main jobs against a simulated cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// Leave the simulated cluster up until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Fetch a URL through the proxy of the environment, in place of curl
    #[arg(long, hide = true, value_name = "URL", conflicts_with = "keep")]
    fetch: Option<String>,
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<u8> {
    match args.fetch {
        Some(url) => app::demo::fetch(&url).await,
        None => app::demo::run(args.keep).await,
    }
}
