//! Who the user is to the API server.

use serde::{Deserialize, Serialize};

use super::client::{Client, ClientError};

/// The API server's name for whoever sends no credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// A user as the API server knows them, impersonation included.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Identity {
    /// For example `system:serviceaccount:shop:dev`.
    pub username: String,
    /// The groups.
    pub groups: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: &'static str,
    kind: &'static str,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reviewed {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    user_info: Identity,
}

/// Asks the API server who the user is; `None` where it cannot say (before 1.28).
///
/// # Errors
/// When the API server cannot be reached or does not know the user.
pub async fn whoami(client: &Client) -> Result<Option<Identity>, ClientError> {
    let review = Review {
        api_version: "authentication.k8s.io/v1",
        kind: "SelfSubjectReview",
    };
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    match client.post::<Reviewed>(path, &review).await {
        Ok(answer) => Ok(Some(answer.status.user_info)),
        // 403: a server that knows the path only as one to be authorized.
        Err(error) if matches!(error.code(), Some(403..=405)) => Ok(None),
        Err(error) => Err(error),
    }
}
