//! The intercepts that there are, whoever made them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::object::{port_name, port_number, text};
use super::origin::{self, SELECTOR};
use super::preflight::check;
use super::site::Site;
use crate::intercept::claim::Claim;
use crate::intercept::redirect::RedirectError;
use crate::k8s::{Client, listing};

/// A Service with intercepts, or with what they left.
#[derive(Clone, Debug, PartialEq)]
pub struct Intercepted {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The Service that leads to its original pods.
    pub origin: String,
    /// Its ports at the relay, by the names that they have in the Service.
    pub landings: Vec<(String, u16)>,
    /// The claims on it; none where only traces are left.
    pub claims: Vec<Claim>,
    /// When the last claim went, in seconds since 1970.
    pub given_back: Option<u64>,
    /// Why the claims cannot be read.
    pub unreadable: Option<String>,
}

impl Intercepted {
    /// Whether nobody has a claim on it any more, and all that is left is for late callers.
    #[must_use]
    pub fn is_given_back(&self) -> bool {
        self.claims.is_empty() && self.unreadable.is_none()
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty where it is the only one.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// What it says is spoken there.
    pub app_protocol: Option<String>,
    /// Whether it is one of TCP.
    pub tcp: bool,
}

/// The ports of a Service in the client's namespace.
///
/// # Errors
/// When there is no such Service, it has none, or it may not be read.
pub async fn ports(client: &Client, service: &str) -> Result<Vec<ServicePort>, RedirectError> {
    let live = there(client, service).await?;
    let read = |port: &Value| ServicePort {
        name: port_name(port).to_owned(),
        port: port_number(port),
        app_protocol: port["appProtocol"].as_str().map(str::to_owned),
        tcp: port["protocol"].as_str().is_none_or(|it| it == "TCP"),
    };
    let ports: Vec<_> = super::object::ports(&live["spec"]).map(read).collect();
    if ports.is_empty() {
        // Most often an ExternalName; the check before an intercept has the words for it.
        check(&live, &live["spec"], true, &[], None, true)?;
    }
    Ok(ports)
}

/// Says whether a Service is there, in the client's namespace.
///
/// # Errors
/// When it is not, with what was perhaps meant, or it may not be read.
pub async fn exists(client: &Client, service: &str) -> Result<(), RedirectError> {
    there(client, service).await.map(drop)
}

async fn there(client: &Client, service: &str) -> Result<Value, RedirectError> {
    let site = Site {
        client: client.clone(),
        namespace: client.namespace().to_owned(),
    };
    match site.service(service).await? {
        Some(live) => Ok(live),
        None => Err(site.missing(service).await),
    }
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One namespace.
    Namespace(String),
    /// All, or those that the user may see.
    All,
}

/// The intercepted Services of `scope`, by namespace and name.
///
/// # Errors
/// When the API server cannot be asked, or the user may look nowhere.
pub async fn list(client: &Client, scope: &Scope) -> Result<Vec<Intercepted>, RedirectError> {
    let mut all: Vec<Intercepted> = origins(client, scope).await?.iter().map(read).collect();
    all.sort_by(|a, b| (&a.namespace, &a.service).cmp(&(&b.namespace, &b.service)));
    Ok(all)
}

/// The origins of `scope`.
pub(super) async fn origins(client: &Client, scope: &Scope) -> Result<Vec<Value>, RedirectError> {
    let site = |namespace: &str| Site {
        client: client.clone(),
        namespace: namespace.to_owned(),
    };
    if let Scope::Namespace(namespace) = scope {
        return site(namespace).origins().await;
    }
    let everywhere = format!("/api/v1/services?labelSelector={SELECTOR}");
    let own = site(client.namespace());
    let denied = match own.list(&everywhere, "list services").await {
        Err(denied @ RedirectError::Denied { .. }) => denied,
        other => return other,
    };
    // Those that have a name for the user, and the one that is theirs.
    let mut names: BTreeSet<String> = listing::namespaces(client)
        .await
        .unwrap_or_default()
        .into_iter()
        .collect();
    names.insert(client.namespace().to_owned());
    let (mut all, mut seen) = (Vec::new(), false);
    for name in names {
        match site(&name).origins().await {
            Ok(origins) => {
                seen = true;
                all.extend(origins);
            }
            Err(RedirectError::Denied { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if seen { Ok(all) } else { Err(denied) }
}

fn read(origin: &Value) -> Intercepted {
    let (claims, unreadable) = match origin::claims(origin) {
        Ok(claims) => (claims, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Intercepted {
        namespace: text(origin, &["metadata", "namespace"]).to_owned(),
        service: origin::owner(origin).0.to_owned(),
        origin: super::object::name(origin).to_owned(),
        landings: origin::landings(origin),
        claims,
        given_back: origin::given_back(origin),
        unreadable,
    }
}
