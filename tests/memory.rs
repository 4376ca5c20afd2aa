//! What the catalog keeps of an object is small, counted by the allocator of this test program.
#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use kdev::addr::ClusterDomain;
use kdev::k8s::kubeconfig::Environment;
use kdev::k8s::{Catalog, Client, KubeOptions};
use kdev::task::Tasks;
use kdev_sim::crowd::Crowd;
use kdev_sim::{Options, SimCluster};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const CROWD: Crowd = Crowd { services: 1_000 };
/// Most bytes that one more object may take, its share of the indexes and of what a catalog takes
/// anyway (two connections, at both ends) included. 60 MiB for 25,000 objects would be 2,500.
const LIMIT: usize = 1_300;

async fn catalog(cluster: &SimCluster, tasks: &Tasks) -> Catalog {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    cluster.write_kubeconfig(&path, "admin", "default").unwrap();
    let options = KubeOptions {
        kubeconfig: Some(path),
        ..KubeOptions::default()
    };
    let client = Client::connect_in(options, Environment::default(), tasks).await;
    let catalog = Catalog::start(client.unwrap(), ClusterDomain::default(), tasks);
    let synced = tokio::time::timeout(Duration::from_secs(60), catalog.synced()).await;
    synced.unwrap();
    catalog
}

#[tokio::test]
async fn an_object_takes_little() {
    let cluster = SimCluster::start(Options::default()).await.unwrap();
    CROWD.join(&cluster);
    let tasks = Tasks::new();
    // The first makes what is made once: TLS sessions, tables, buffers that stay.
    let first = catalog(&cluster, &tasks).await;
    let before = ALLOCATOR.allocated();
    let second = catalog(&cluster, &tasks).await;
    let taken = ALLOCATOR.allocated().saturating_sub(before);
    assert_eq!(second.services().len(), CROWD.services);
    assert_eq!(first.services().len(), CROWD.services);
    let objects = CROWD.services + CROWD.pods();
    println!("{} bytes an object", taken / objects);
    assert!(
        taken / objects <= LIMIT,
        "{} bytes for each of {objects} objects",
        taken / objects
    );
    // Not nothing either, or this would not measure what it should.
    assert!(taken / objects >= 100);
    tasks.shutdown(Duration::from_secs(5)).await;
    cluster.shutdown().await;
}
