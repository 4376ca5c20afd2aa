//! Reviews: what a user may do, asked in advance.

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::protobuf;
use super::route::Target;
use crate::http::{self, Answer, Failure};
use crate::rbac::{Ask, Identity};
use crate::resources::{ACCESS_REVIEWS, SELF_REVIEWS};
use crate::world::World;

/// A review is a few hundred bytes; real servers take 3 MiB of anything.
const LARGEST: usize = 64 * 1024;

pub(crate) async fn answer(
    world: &World,
    who: &Identity,
    target: &Target,
    body: Incoming,
) -> Result<Answer, Failure> {
    let body = Limited::new(body, LARGEST).collect().await;
    let body = body
        .map_err(|error| Failure::bad_request(error.to_string()))?
        .to_bytes();
    let mut review = match protobuf::review(&body) {
        Some(review) => review,
        None => serde_json::from_slice::<Value>(&body).map_err(|error| {
            Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {error}",
                target.resource.kind
            ))
        })?,
    };
    if !review.is_object() {
        return Err(Failure::bad_request("the object provided is no object"));
    }
    review["kind"] = json!(target.resource.kind);
    review["apiVersion"] = json!(target.resource.api_version());
    if review.get("metadata").is_none() {
        review["metadata"] = json!({"creationTimestamp": null});
    }
    review["status"] = if target.resource == &ACCESS_REVIEWS {
        access(world, who, &review["spec"])?
    } else if target.resource == &SELF_REVIEWS {
        json!({"userInfo": {"username": who.name, "groups": who.groups}})
    } else {
        rules(world, who, &review["spec"])
    };
    Ok(http::document(StatusCode::CREATED, &review))
}

fn access(world: &World, who: &Identity, spec: &Value) -> Result<Value, Failure> {
    let allowed = if let Some(attributes) = spec.get("resourceAttributes") {
        let field = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
        world.rbac.allows(
            who,
            &Ask {
                verb: field("verb"),
                group: field("group"),
                resource: field("resource"),
                subresource: field("subresource"),
                namespace: field("namespace"),
                name: field("name"),
            },
        )
    } else if spec.get("nonResourceAttributes").is_some() {
        spec["nonResourceAttributes"]["verb"] == "get"
    } else {
        return Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            ".authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: \
             \"null\": exactly one of nonResourceAttributes \
             or resourceAttributes must be specified",
        ));
    };
    let reason = if allowed {
        "RBAC: allowed by the simulation's rules"
    } else {
        ""
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    Ok(status)
}

fn rules(world: &World, who: &Identity, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let mut resource_rules = world.rbac.rules_in(who, namespace);
    resource_rules.push(json!({
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    }));
    json!({
        "resourceRules": resource_rules,
        "nonResourceRules": [{
            "verbs": ["get"],
            "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/version"],
        }],
        "incomplete": false,
    })
}
