//! Where the lab is.

use std::path::PathBuf;

use kdev::k8s::KubeOptions;

/// Options for the account `name` through `door`, which is `api` or `front`.
pub(crate) fn options(name: &str, door: &str) -> KubeOptions {
    let state = std::env::var_os("KDEV_LAB_STATE").expect("cluster/lab/env sets KDEV_LAB_STATE");
    let suffix = if door == "front" { "-front" } else { "" };
    let file = format!("{name}{suffix}.kubeconfig");
    KubeOptions {
        kubeconfig: Some(PathBuf::from(state).join("kubeconfig").join(file)),
        ..KubeOptions::default()
    }
}

/// The doors to go through.
pub(crate) fn doors() -> Vec<String> {
    let doors = std::env::var("KDEV_LAB_DOORS").unwrap_or_else(|_| "api front".to_owned());
    doors.split_whitespace().map(str::to_owned).collect()
}
