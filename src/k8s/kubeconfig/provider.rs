//! What the `auth-provider` of a user means. kubectl has one left; the clouds' own became plugins.

use std::path::PathBuf;

use kube::config::{AuthProviderConfig, Kubeconfig};

use super::KubeconfigError;
use crate::k8s::oidc::{Origin, Provider};

/// The login that `provider` describes.
pub(super) fn choose(
    provider: &AuthProviderConfig,
    context: &str,
    user: Option<&str>,
    files: &[PathBuf],
) -> Result<Provider, KubeconfigError> {
    let instead = match provider.name.as_str() {
        "oidc" => {
            let user = user.unwrap_or_default();
            let origin = Origin {
                file: file_of(user, files),
                user: user.to_owned(),
            };
            return Provider::new(&provider.config, origin)
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
