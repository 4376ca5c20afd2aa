//! What proves kdev to the relay: the content of a Kubernetes Secret.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::dial::DialError;
use crate::k8s::install::{INTERCEPT_SECRET, NAME};
use crate::k8s::{Client, ClientError, access};
use crate::tunnel::pool::Trouble;
use crate::tunnel::{Role, Secret};

/// The key in the Secret's data.
const KEY: &str = "key";
/// How long the Secret is taken as read: the tunnels of a moment share it, and one that an
/// upgrade of the relay renewed is seen by the next try.
const FRESH: Duration = Duration::from_secs(5);
/// How long a Secret that was read before is asked for again: where the laptop has changed its
/// network, the question may have gone into a connection that nobody knows to be dead. Less than
/// the stream under the tunnel takes on any line that is worth it.
const ASK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// The Secret of one namespace that admits tunnels of a role, read when it is needed.
#[derive(Debug)]
pub(super) struct RoleSecret {
    client: Client,
    namespace: String,
    role: Role,
    read: Mutex<Option<(Instant, Secret)>>,
}

impl RoleSecret {
    pub(super) fn new(client: Client, namespace: String, role: Role) -> Self {
        Self {
            client,
            namespace,
            role,
            read: Mutex::default(),
        }
    }

    /// The Secret as it is now, or was while the API server cannot be asked.
    pub(super) async fn get(&self) -> Result<Secret, Trouble> {
        let mut kept = self.read.lock().await;
        if let Some((at, secret)) = &*kept
            && at.elapsed() < FRESH
        {
            return Ok(secret.clone());
        }
        let reading = read(&self.client, &self.namespace, self.role);
        let secret = match &*kept {
            None => reading.await?,
            Some((_, old)) => match timeout(ASK_AGAIN, reading).await {
                Ok(Ok(secret)) => secret,
                Ok(Err(trouble)) if !trouble.passing => return Err(trouble),
                Ok(Err(_)) | Err(_) => return Ok(old.clone()),
            },
        };
        *kept = Some((Instant::now(), secret.clone()));
        Ok(secret)
    }
}

/// Reads the Secret that admits tunnels of `role` to the relay in `namespace`.
pub(super) async fn read(client: &Client, namespace: &str, role: Role) -> Result<Secret, Trouble> {
    let name = match role {
        Role::Forward => NAME,
        Role::Reverse => INTERCEPT_SECRET,
    };
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let what = format!("Secret {name} in namespace {namespace}");
    let object: Object = match client.get(&path).await {
        Ok(object) => object,
        Err(error) => return Err(explain(error, namespace, name, what)),
    };
    let key = object.data.get(KEY);
    let key = key.and_then(|key| base64::engine::general_purpose::STANDARD.decode(key).ok());
    key.and_then(Secret::new).ok_or_else(|| {
        Trouble::lasting(DialError::Unreachable {
            target: "the relay".to_owned(),
            reason: format!("the {what} has no {KEY:?} that could be kdev's"),
            fix: "`kdev upgrade` makes it anew".to_owned(),
        })
    })
}

fn explain(error: ClientError, namespace: &str, name: &str, what: String) -> Trouble {
    match error {
        ClientError::Status {
            code: 403, message, ..
        } => Trouble::lasting(access::denied(
            &message,
            "get",
            &format!("secrets/{name}"),
            namespace,
        )),
        ClientError::Status { code: 404, .. } => Trouble::lasting(DialError::NotFound {
            what,
            fix: "`kdev upgrade` makes it anew".to_owned(),
        }),
        error if error.is_passing() => Trouble::passing(error.into()),
        error => Trouble::lasting(error.into()),
    }
}
