//! Which cluster, user and namespace, from which files.

use super::check::Check;
use crate::k8s::KubeOptions;
use crate::k8s::kubeconfig::{self, Environment, KubeconfigError, Loaded};

const ID: &str = "kubeconfig";
const TITLE: &str = "kubeconfig";

pub(super) async fn check(
    options: &KubeOptions,
    environment: &Environment,
) -> (Option<Loaded>, Check) {
    let (options, environment) = (options.clone(), environment.clone());
    let read = move || kubeconfig::load(&options, &environment);
    let loaded = tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|e| Err(KubeconfigError::Other(format!("reading it failed: {e}"))));
    match loaded {
        Ok(loaded) => {
            let check = Check::ok(ID, TITLE, describe(&loaded)).needed();
            (Some(loaded), check)
        }
        Err(error) => (None, failure(&error)),
    }
}

fn describe(loaded: &Loaded) -> String {
    let files: Vec<String> = loaded
        .files
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    let files = match files.as_slice() {
        [] => "the pod's service account".to_owned(),
        files => files.join(", "),
    };
    let mut text = format!(
        "context {} of {files}: user {}, namespace {}, server {}",
        loaded.context, loaded.user, loaded.namespace, loaded.server
    );
    if let Some(plugin) = loaded.plugin() {
        text.push_str(&format!(", credentials by {plugin}"));
    }
    text
}

fn failure(error: &KubeconfigError) -> Check {
    let fix = match error {
        KubeconfigError::Missing { .. } => {
            "set KUBECONFIG, pass --kubeconfig FILE, or get one from whoever runs the cluster; \
             `kdev demo` needs none"
        }
        KubeconfigError::NoContext { .. } | KubeconfigError::UnknownContext { .. } => {
            "pass --context NAME, or `kubectl config use-context NAME`"
        }
        KubeconfigError::Dangling { .. } => "choose another context, or get a new kubeconfig",
        KubeconfigError::Unreadable { .. } => "make the file readable, or name another one",
        KubeconfigError::Malformed { .. } => "correct the file; `kubectl config view` reads it too",
        KubeconfigError::Material { .. } | KubeconfigError::Other(_) => "get a new kubeconfig",
        KubeconfigError::Proxy(_) => {
            "correct proxy-url in the kubeconfig, or HTTPS_PROXY in the environment"
        }
    };
    let text = error.to_string();
    // The fix that the error carries is here already.
    let what = text.split("; set KUBECONFIG").next().unwrap_or(&text);
    Check::fail(ID, TITLE, what).fix(fix)
}
