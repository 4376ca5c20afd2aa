//! What lists and watches are asked with, checked as the real server checks it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::selector::{Fields, Labels};
use crate::http::Failure;
use crate::resources::{EVENTS, NAMESPACES, PODS, Resource};

/// A checked query of a list or watch.
#[derive(Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: Labels,
    pub(crate) fields: Fields,
    /// Absent is the newest state; zero is any state.
    pub(crate) version: Option<u64>,
    pub(crate) exact: bool,
    pub(crate) limit: usize,
    pub(crate) resumed: Option<Token>,
    pub(crate) timeout: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: bool,
}

impl ListOptions {
    pub(crate) fn parse(resource: &Resource, query: &Query) -> Result<Self, Failure> {
        let labels = Labels::parse(query.get("labelSelector")).map_err(Failure::bad_request)?;
        let fields = Fields::parse(query.get("fieldSelector")).map_err(Failure::bad_request)?;
        check_fields(resource, &fields)?;
        let version = query.get("resourceVersion").map(version).transpose()?;
        let matching = query.get("resourceVersionMatch");
        if matching.is_some() && version.is_none() && !query.flag("sendInitialEvents") {
            return Err(invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
                 resourceVersion is provided",
            ));
        }
        let limit = number(query.get("limit"))?.unwrap_or(0);
        Ok(Self {
            labels,
            fields,
            // A limit with a version asks for exactly that version, unless told otherwise.
            exact: matching == Some("Exact")
                || (matching.is_none() && limit > 0 && version.is_some_and(|v| v > 0)),
            // Any state comes from the cache, which knows no pages.
            limit: if version == Some(0) {
                0
            } else {
                usize::try_from(limit).unwrap_or(0)
            },
            version,
            resumed: query.get("continue").map(Token::decode).transpose()?,
            timeout: number(query.get("timeoutSeconds"))?,
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events: query.flag("sendInitialEvents"),
        })
    }
}

fn version(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        let message = format!(
            "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": \
             invalid syntax"
        );
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    })
}

fn number(text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Failure::bad_request(format!(
            "strconv.ParseInt: parsing \"{text}\": invalid syntax"
        ))
    })
}

fn check_fields(resource: &Resource, fields: &Fields) -> Result<(), Failure> {
    const EVERYWHERE: [&str; 2] = ["metadata.name", "metadata.namespace"];
    const OF_PODS: [&str; 6] = [
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ];
    let known = |field: &str| {
        EVERYWHERE.contains(&field)
            || (resource == &PODS && OF_PODS.contains(&field))
            || (resource == &NAMESPACES && field == "status.phase")
            || (resource == &EVENTS && field.starts_with("involvedObject."))
    };
    let Some(unknown) = fields.names().find(|field| !known(field)) else {
        return Ok(());
    };
    Err(Failure::bad_request(if resource == &PODS {
        format!("field label not supported: {unknown}")
    } else {
        format!(
            "\"{unknown}\" is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\""
        )
    }))
}

fn invalid(cause: &str) -> Failure {
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {cause}");
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        .with_details(json!({"group": "meta.k8s.io", "kind": "ListOptions"}))
}

/// A `continue` token: the version of the first page and the last object of the previous one.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) version: u64,
    pub(crate) after: (String, String),
}

impl Token {
    pub(crate) fn encode(&self) -> String {
        let token = json!({"rv": self.version, "ns": self.after.0, "name": self.after.1});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Self, Failure> {
        let invalid = || Failure::bad_request("invalid continue token: continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let field = |name: &str| token[name].as_str().map(str::to_owned).ok_or_else(invalid);
        let version = token["rv"].as_u64().ok_or_else(invalid)?;
        Ok(Self {
            version,
            after: (field("ns")?, field("name")?),
        })
    }
}
