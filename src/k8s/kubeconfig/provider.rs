//! What the `auth-provider` of a user means. kubectl has one left; the clouds' own became plugins.

use std::path::PathBuf;

use kube::config::{AuthInfo, Kubeconfig};

use super::KubeconfigError;
use crate::k8s::oidc::{Origin, Provider};

/// Whether the file itself has the credentials: to kubectl they win over what would get others.
pub(super) fn is_written(auth: &AuthInfo) -> bool {
    auth.token.is_some() || auth.token_file.is_some() || auth.username.is_some()
}

/// Takes the auth-provider out of `auth`: the login that it describes, where one is needed.
pub(super) fn choose(
    auth: &mut AuthInfo,
    context: &str,
    user: Option<&str>,
    files: &[PathBuf],
) -> Result<Option<Provider>, KubeconfigError> {
    let provider = auth.auth_provider.take();
    let Some(provider) = provider.filter(|_| !is_written(auth)) else {
        return Ok(None);
    };
    if auth.exec.is_some() {
        return Err(KubeconfigError::Other(format!(
            "context {context:?} has both a credential plugin (`exec`) and an `auth-provider`: remove one of them from the kubeconfig"
        )));
    }
    let instead = match provider.name.as_str() {
        "oidc" => {
            let user = user.unwrap_or_default();
            let origin = Origin {
                file: file_of(user, files),
                user: user.to_owned(),
            };
            return Provider::new(&provider.config, origin)
                .map(Some)
                .map_err(|error| KubeconfigError::Other(format!("context {context:?}: {error}")));
        }
        "gcp" => {
            "install gke-gcloud-auth-plugin and run `gcloud container clusters get-credentials` again"
        }
        "azure" => "install kubelogin and run `kubelogin convert-kubeconfig`",
        _ => "get a kubeconfig with a credential plugin (`exec`) in its place",
    };
    Err(KubeconfigError::Other(format!(
        "context {context:?} logs in with the auth-provider {:?}, which kubectl has no more either: {instead}",
        provider.name
    )))
}

/// The first file that has `user`: its word is taken where several have one.
fn file_of(user: &str, files: &[PathBuf]) -> PathBuf {
    let has = |file: &&PathBuf| {
        Kubeconfig::read_from(file)
            .is_ok_and(|config| config.auth_infos.iter().any(|u| u.name == user))
    };
    let found = files.iter().find(has).or_else(|| files.first());
    found.cloned().unwrap_or_default()
}
