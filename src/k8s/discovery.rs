//! What the API server is, and which of the API groups it has that are not everywhere.

use serde::Deserialize;

use super::client::{Client, ClientError};

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

/// Asks for the server's version: the cheapest request there is, allowed to everybody.
///
/// # Errors
/// When the API server cannot be reached or does not know the user.
pub async fn version(client: &Client) -> Result<Version, ClientError> {
    client.get("/version").await
}

/// Whether the server has `discovery.k8s.io/v1`, the EndpointSlices of 1.21 and later.
///
/// # Errors
/// When the API server cannot be reached or does not know the user.
pub async fn has_slices(client: &Client) -> Result<bool, ClientError> {
    #[derive(Deserialize)]
    struct Group {
        versions: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        version: String,
    }
    match client.get::<Group>("/apis/discovery.k8s.io").await {
        Ok(group) => Ok(group.versions.iter().any(|v| v.version == "v1")),
        Err(error) if matches!(error.code(), Some(403 | 404)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The `apiVersion` of the evictions that the server takes: `policy/v1` since 1.22, `policy/v1beta1`
/// before; `None` where it has no `pods/eviction` at all.
///
/// # Errors
/// When the API server cannot be reached, or does not tell this user.
pub async fn eviction(client: &Client) -> Result<Option<String>, ClientError> {
    #[derive(Deserialize)]
    struct List {
        resources: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        name: String,
        #[serde(default)]
        group: String,
        #[serde(default)]
        version: String,
    }
    let list: List = client.get("/api/v1").await?;
    let mut rows = list.resources.into_iter();
    let row = rows.find(|row| row.name == "pods/eviction");
    Ok(row.map(|row| format!("{}/{}", row.group, row.version)))
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
