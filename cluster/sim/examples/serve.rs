//! Runs the simulated shop until Ctrl-D, for a look with kubectl.
//!
//! ```text
//! cargo run -p kdev-sim --example serve -- sim.kubeconfig &
//! kubectl --kubeconfig sim.kubeconfig get pods -n shop
//! ```

use std::io;
use std::path::Path;

use kdev_sim::{Options, SimCluster, shop};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> io::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "sim.kubeconfig".to_owned());
    let old = std::env::args().nth(2).is_some_and(|flag| flag == "old");
    let options = if old {
        Options::old()
    } else {
        Options::default()
    };
    let cluster = SimCluster::start(options).await?;
    shop::furnish(&cluster);
    cluster.write_kubeconfig(Path::new(&path), "admin", shop::NAMESPACE)?;
    println!("{} with {path}; end of input stops it", cluster.url());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    cluster.shutdown().await;
    Ok(())
}
