//! `pods/eviction`: deleting a pod as far as its PodDisruptionBudget allows, in the real server's
//! words.

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::route::Target;
use crate::budget::{self, is_healthy};
use crate::http::{self, Answer, Failure};
use crate::resources::PODS;
use crate::world::World;

/// An eviction is a few hundred bytes; real servers take 3 MiB of anything.
const LARGEST: usize = 64 * 1024;
/// What a budget has too little for.
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// The version of `policy` that evictions are of.
pub(crate) fn version(world: &World) -> &'static str {
    match world.options.minor() {
        ..22 => "v1beta1",
        _ => "v1",
    }
}

pub(crate) async fn answer(
    world: &World,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let ask = &target.ask;
    if ask.verb != "create" {
        return Err(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let body = Limited::new(request.into_body(), LARGEST).collect().await;
    let body = body
        .map_err(|error| Failure::bad_request(error.to_string()))?
        .to_bytes();
    let eviction: Value = serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request(format!("the object is unrecognized: {error}")))?;
    // Servers from 1.22 on take the older version as well.
    let of = text(&eviction["apiVersion"]);
    let known = of == "policy/v1beta1" || of == format!("policy/{}", version(world));
    if !known || eviction["kind"] != "Eviction" {
        return Err(Failure::bad_request(format!(
            "no kind \"{}\" is registered for version \"{of}\" in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\"",
            text(&eviction["kind"])
        )));
    }
    if eviction["metadata"]["name"] != ask.name.as_str() {
        return Err(Failure::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let _held = world.hold();
    let pod = world
        .store
        .get(PODS.plural, &ask.namespace, &ask.name)
        .ok_or_else(|| Failure::not_found(PODS.plural, "", &ask.name))?;
    let options = &eviction["deleteOptions"];
    let (wanted, found) = (&options["preconditions"]["uid"], &pod["metadata"]["uid"]);
    if wanted.is_string() && wanted != found {
        let message = format!(
            "Operation cannot be fulfilled on pods \"{}\": Precondition failed: UID in \
             precondition: {}, UID in object meta: {}",
            ask.name,
            text(wanted),
            text(found)
        );
        return Err(Failure::new(StatusCode::CONFLICT, "Conflict", message));
    }
    let phase = text(&pod["status"]["phase"]);
    let leaves = pod["metadata"]["deletionTimestamp"].is_string();
    if !leaves && phase == "Running" {
        admit(world, &pod)?;
    }
    let grace = options["gracePeriodSeconds"].as_u64();
    world.end_pod(&ask.namespace, &ask.name, grace);
    let done = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    });
    Ok(http::document(StatusCode::CREATED, &done))
}

/// Refuses a pod that its budget cannot spare.
fn admit(world: &World, pod: &Value) -> Result<(), Failure> {
    let budgets = budget::of_pod(world, pod);
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                 does not support.",
            ));
        }
    };
    let standing = budget::standing(world, budget);
    if !is_healthy(pod) {
        // It is none of those that the budget counts.
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (standing.desired > 0 && standing.healthy >= standing.desired) {
            return Ok(());
        }
    }
    if standing.allowed() > 0 {
        return Ok(());
    }
    let cause = format!(
        "The disruption budget {} needs {} healthy pods and has {} currently",
        text(&budget["metadata"]["name"]),
        standing.desired,
        standing.healthy
    );
    let causes = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
    let code = StatusCode::TOO_MANY_REQUESTS;
    Err(Failure::new(code, "TooManyRequests", VIOLATES).with_details(causes))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
