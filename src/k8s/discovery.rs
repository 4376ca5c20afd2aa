//! What the API server is, and which of the API groups it has that are not everywhere.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::client::{Client, ClientError};
use super::identity::ANONYMOUS;

/// What the API server says where the user may not act as another one, by the verb `impersonate`
/// or by those of constrained impersonation, `impersonate:MODE` and `impersonate-on:MODE:VERB`.
const IMPERSONATE: &str = " cannot impersonate";

/// The API server's version.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// As the server calls itself, for example `v1.33.1+k3s1`.
    pub git_version: String,
    /// The major number; some vendors leave it empty.
    #[serde(default)]
    pub major: String,
    /// The minor number; some vendors add a `+`.
    #[serde(default)]
    pub minor: String,
}

impl Version {
    /// The minor number of a server of major version 1.
    #[must_use]
    pub fn minor(&self) -> Option<u32> {
        let written = self.minor.trim_end_matches(|c: char| !c.is_ascii_digit());
        let from_name = || {
            let mut parts = self.git_version.trim_start_matches('v').split('.');
            parts.nth(1).map(str::to_owned)
        };
        let text = if written.is_empty() {
            from_name()?
        } else {
            written.to_owned()
        };
        text.parse().ok()
    }
}

/// Asks for the server's version, the cheapest request there is: tells a broken way or login from a
/// missing permission. Nearly everybody may ask; `None` where this user may not, as with an
/// impersonation that is allowed for some requests only.
///
/// # Errors
/// When the API server cannot be reached, does not know the user, or lets nobody be impersonated.
pub async fn version(client: &Client) -> Result<Option<Version>, ClientError> {
    let denied = match client.get("/version").await {
        Ok(version) => return Ok(Some(version)),
        Err(error) if error.is_denial() => error,
        Err(error) => return Err(error),
    };
    let text = denied.to_string();
    if text.contains(ANONYMOUS) || (refuses_impersonation(&denied) && !acts(client).await) {
        return Err(denied);
    }
    tracing::debug!(%denied, "the API server's version is unknown");
    Ok(None)
}

/// Whether the user may not act as somebody else, in this request at least.
#[must_use]
pub fn refuses_impersonation(error: &ClientError) -> bool {
    error.to_string().contains(IMPERSONATE)
}

/// Whether the user may act as somebody else in one of the requests that kdev lives by.
async fn acts(client: &Client) -> bool {
    let namespace = client.namespace();
    let paths = [
        "services?limit=1",
        "pods?limit=1",
        "services/kdev",
        "pods/kdev",
    ];
    let asked = paths.map(|path| async move {
        let path = format!("/api/v1/namespaces/{namespace}/{path}");
        match client.get::<IgnoredAny>(&path).await {
            Ok(_) => true,
            Err(error) => !refuses_impersonation(&error),
        }
    });
    futures_util::future::join_all(asked).await.contains(&true)
}

/// Whether the server has `discovery.k8s.io/v1`, the EndpointSlices of 1.21 and later; `None`
/// where it does not say so to this user.
///
/// # Errors
/// When the API server cannot be reached or does not know the user.
pub async fn has_slices(client: &Client) -> Result<Option<bool>, ClientError> {
    #[derive(Deserialize)]
    struct Group {
        versions: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        version: String,
    }
    match client.get::<Group>("/apis/discovery.k8s.io").await {
        Ok(group) => Ok(Some(group.versions.iter().any(|v| v.version == "v1"))),
        Err(error) if error.code() == Some(404) => Ok(Some(false)),
        Err(error) if error.code() == Some(403) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_write_versions_in_their_own_ways() {
        let minor = |git: &str, minor: &str| {
            Version {
                git_version: git.to_owned(),
                major: "1".to_owned(),
                minor: minor.to_owned(),
            }
            .minor()
        };
        assert_eq!(minor("v1.20.2", "20"), Some(20));
        assert_eq!(minor("v1.33.1-gke.100", "33+"), Some(33));
        assert_eq!(minor("v1.31.0+k3s1", ""), Some(31));
        assert_eq!(minor("unknown", ""), None);
    }
}
