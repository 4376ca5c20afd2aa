//! Creating, replacing, patching, applying and deleting.

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};

use super::query::Query;
use super::route::Target;
use super::services;
use crate::fields::{self, Conflict};
use crate::http::{self, Answer, Failure};
use crate::quota;
use crate::resources::{NAMESPACES, PODS, SERVICES};
use crate::world::World;

/// What real servers take.
const LARGEST: usize = 3 << 20;
/// What a ConfigMap or a Secret may hold, decoded.
const LARGEST_DATA: usize = 1 << 20;

pub(crate) async fn answer(
    world: &World,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, LARGEST).collect().await;
    let body = body
        .map_err(|_| {
            let code = StatusCode::PAYLOAD_TOO_LARGE;
            Failure::new(
                code,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            )
        })?
        .to_bytes();
    let object = match body.is_empty() {
        true => json!({}),
        false => serde_json::from_slice::<Value>(&body).map_err(|error| {
            Failure::bad_request(format!("the object provided is unrecognized: {error}"))
        })?,
    };
    let write = Write {
        world,
        target,
        manager: query.get("fieldManager").unwrap_or("unknown"),
        dry: query.get("dryRun").is_some(),
    };
    match target.ask.verb.as_str() {
        "create" => write.create(object),
        "update" => write.update(object),
        "delete" => write.delete(&object),
        _ => write.patch(&parts.headers, &object, query),
    }
}

struct Write<'a> {
    world: &'a World,
    target: &'a Target,
    manager: &'a str,
    dry: bool,
}

impl Write<'_> {
    fn create(&self, mut object: Value) -> Result<Answer, Failure> {
        let _held = self.world.hold();
        self.place(&mut object)?;
        if let (Some(prefix), true) = (
            object["metadata"]["generateName"].as_str(),
            name_of(&object).is_empty(),
        ) {
            let name = format!("{prefix}{:05}", self.world.next_number());
            object["metadata"]["name"] = json!(name);
        }
        let name = name_of(&object);
        if name.is_empty() {
            return Err(invalid(
                self.target,
                "",
                "metadata.name: Required value: name is required",
            ));
        }
        if self.live(&name).is_some() {
            return Err(self.conflict(&name, "AlreadyExists", "already exists"));
        }
        self.complete(None, &mut object)?;
        fields::updated(None, &mut object, self.manager);
        self.store(None, object, StatusCode::CREATED)
    }

    fn update(&self, mut object: Value) -> Result<Answer, Failure> {
        let _held = self.world.hold();
        let live = self.existing()?;
        self.place(&mut object)?;
        self.check_version(&live, &object["metadata"]["resourceVersion"])?;
        object["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        object["status"] = live["status"].clone();
        self.complete(Some(&live), &mut object)?;
        fields::updated(Some(&live), &mut object, self.manager);
        self.store(Some(&live), object, StatusCode::OK)
    }

    fn patch(&self, headers: &HeaderMap, patch: &Value, query: &Query) -> Result<Answer, Failure> {
        let form = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let form = form
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        let _held = self.world.hold();
        match form {
            "application/apply-patch+yaml" => {
                if query.get("fieldManager").is_none() {
                    return Err(Failure::bad_request(
                        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: \
                         is required for apply patch",
                    ));
                }
                let mut config = patch.clone();
                self.place(&mut config)?;
                let live = self.live(&self.target.ask.name);
                let applied =
                    fields::apply(live.as_ref(), &config, self.manager, query.flag("force"));
                let applied = applied.map_err(|Conflict(message)| {
                    Failure::new(StatusCode::CONFLICT, "Conflict", message)
                })?;
                let mut applied = applied;
                self.complete(live.as_ref(), &mut applied)?;
                let code = match live {
                    None => StatusCode::CREATED,
                    Some(_) => StatusCode::OK,
                };
                self.store(live.as_ref(), applied, code)
            }
            "application/merge-patch+json" => {
                let live = self.existing()?;
                self.check_version(&live, &patch["metadata"]["resourceVersion"])?;
                let mut object = live.clone();
                fields::merge(&mut object, patch);
                for field in ["uid", "name"] {
                    if object["metadata"][field] != live["metadata"][field] {
                        let cause = format!("metadata.{field}: Invalid value: field is immutable");
                        return Err(invalid(self.target, &self.target.ask.name, &cause));
                    }
                }
                self.complete(Some(&live), &mut object)?;
                // A list that is patched is where the tracking begins from, so a patch of it alone is
                // how a manager gives its fields back.
                if object["metadata"]["managedFields"] == json!([{}]) {
                    object["metadata"]["managedFields"] = json!([]);
                }
                fields::updated(Some(&live), &mut object, self.manager);
                self.store(Some(&live), object, StatusCode::OK)
            }
            other => {
                let message = format!(
                    "the body of the request was in an unknown format - accepted media types \
                     include: application/merge-patch+json, application/apply-patch+yaml; got {other}"
                );
                let code = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Err(Failure::new(code, "UnsupportedMediaType", message))
            }
        }
    }

    fn delete(&self, options: &Value) -> Result<Answer, Failure> {
        let _held = self.world.hold();
        let live = self.existing()?;
        let wanted = &options["preconditions"];
        if wanted["uid"].is_string() && wanted["uid"] != live["metadata"]["uid"] {
            let name = &self.target.ask.name;
            let found = live["metadata"]["uid"].as_str().unwrap_or_default();
            let text = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {found}",
                wanted["uid"].as_str().unwrap_or_default()
            );
            return Err(self.modified(name, &text));
        }
        self.check_version(&live, &wanted["resourceVersion"])?;
        if self.dry {
            return Ok(http::document(StatusCode::OK, &live));
        }
        let foreground = options["propagationPolicy"] == "Foreground";
        let (resource, ask) = (self.target.resource, &self.target.ask);
        let left = self.world.delete(
            resource,
            &ask.namespace,
            &ask.name,
            foreground,
            options["gracePeriodSeconds"].as_u64(),
        );
        let answer = left.unwrap_or_else(|| {
            json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {"name": ask.name, "kind": resource.plural, "uid": live["metadata"]["uid"]},
            })
        });
        Ok(http::document(StatusCode::OK, &answer))
    }

    /// Fills in what the server does, and leaves out what is empty.
    fn complete(&self, live: Option<&Value>, object: &mut Value) -> Result<(), Failure> {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["labels", "annotations"] {
                if metadata.get(field) == Some(&json!({})) {
                    metadata.remove(field);
                }
            }
        }
        match self.target.resource == &SERVICES {
            true => services::complete(self.world, self.target, live, object),
            false => Ok(()),
        }
    }

    /// Gives the object the request's namespace and kind, which it may not contradict.
    fn place(&self, object: &mut Value) -> Result<(), Failure> {
        let (resource, namespace) = (self.target.resource, &self.target.ask.namespace);
        if !object["metadata"].is_object() {
            return Err(Failure::bad_request("the object provided has no metadata"));
        }
        if self
            .world
            .store
            .get(NAMESPACES.plural, "", namespace)
            .is_none()
        {
            return Err(Failure::not_found(NAMESPACES.plural, "", namespace));
        }
        let given = &object["metadata"]["namespace"];
        if given.is_string() && given.as_str() != Some(namespace) {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            ));
        }
        let (api, kind) = (&object["apiVersion"], &object["kind"]);
        if *api != resource.api_version() || *kind != resource.kind {
            let message = format!(
                "the API version in the data ({api}) and kind ({kind}) do not match the expected \
                 ones ({} {})",
                resource.api_version(),
                resource.kind
            );
            return Err(Failure::bad_request(message));
        }
        object["metadata"]["namespace"] = json!(namespace);
        Ok(())
    }

    fn store(
        &self,
        live: Option<&Value>,
        mut object: Value,
        code: StatusCode,
    ) -> Result<Answer, Failure> {
        let (resource, ask) = (self.target.resource, &self.target.ask);
        let name = name_of(&object);
        if live.is_some_and(|live| live["immutable"] == true && changes_data(live, &object)) {
            let cause = "data: Forbidden: field is immutable when `immutable` is set";
            return Err(invalid(self.target, &name, cause));
        }
        let size: usize = ["data", "binaryData"]
            .iter()
            .map(|field| data_size(&object[field]))
            .sum();
        if size > LARGEST_DATA {
            let cause = format!("[]: Too long: must have at most {LARGEST_DATA} bytes");
            return Err(invalid(self.target, &name, &cause));
        }
        self.world.policies.admit(resource, &object)?;
        if live.is_none() {
            quota::admit(&self.world.store, resource, &object)?;
        }
        if object.get("spec").is_some() {
            let before = live.and_then(|live| live["metadata"]["generation"].as_u64());
            let same = live.is_some_and(|live| live["spec"] == object["spec"]);
            let generation = before.unwrap_or_default() + u64::from(!same);
            object["metadata"]["generation"] = json!(generation);
        }
        if self.dry {
            return Ok(http::document(code, &object));
        }
        if resource == &PODS {
            // One that runs has a node and programs, which only a controller's get.
            let text = "this server makes pods for controllers, and by a dry run";
            return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "", text));
        }
        let key = (
            resource.plural.to_owned(),
            ask.namespace.clone(),
            name.clone(),
        );
        self.world.store.put(key, object);
        if resource == &SERVICES {
            self.world.follow_services(&ask.namespace);
        }
        let stored = self.live(&name).unwrap_or_default();
        Ok(http::document(code, &stored))
    }

    fn live(&self, name: &str) -> Option<Value> {
        let ask = &self.target.ask;
        let live = self
            .world
            .store
            .get(self.target.resource.plural, &ask.namespace, name)?;
        Some(Value::clone(&live))
    }

    fn existing(&self) -> Result<Value, Failure> {
        let (resource, name) = (self.target.resource, &self.target.ask.name);
        self.live(name)
            .ok_or_else(|| Failure::not_found(resource.plural, resource.group, name))
    }

    fn check_version(&self, live: &Value, wanted: &Value) -> Result<(), Failure> {
        if !wanted.is_string() || *wanted == live["metadata"]["resourceVersion"] {
            return Ok(());
        }
        let text = "the object has been modified; please apply your changes to the latest version \
                    and try again";
        Err(self.modified(&self.target.ask.name, text))
    }

    fn modified(&self, name: &str, text: &str) -> Failure {
        let what = self.qualified();
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {text}");
        Failure::new(StatusCode::CONFLICT, "Conflict", message)
    }

    fn conflict(&self, name: &str, reason: &'static str, text: &str) -> Failure {
        let message = format!("{} \"{name}\" {text}", self.qualified());
        Failure::new(StatusCode::CONFLICT, reason, message)
    }

    fn qualified(&self) -> String {
        let resource = self.target.resource;
        match resource.group {
            "" => resource.plural.to_owned(),
            group => format!("{}.{group}", resource.plural),
        }
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn changes_data(live: &Value, object: &Value) -> bool {
    ["data", "binaryData", "immutable"]
        .iter()
        .any(|field| live[field] != object[field])
}

/// Bytes of `data`; base64 is a third longer than what it stands for.
fn data_size(data: &Value) -> usize {
    let values = data.as_object().into_iter().flatten();
    values
        .map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len() * 3 / 4)
        .sum()
}

pub(super) fn invalid(target: &Target, name: &str, cause: &str) -> Failure {
    let kind = target.resource.kind;
    let message = format!("{kind} \"{name}\" is invalid: {cause}");
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
}
