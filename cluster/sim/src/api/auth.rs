//! Authentication, impersonation and authorization, in the real server's words.

use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::json;

use crate::http::Failure;
use crate::rbac::{Ask, Identity};
use crate::world::World;

/// Who sent these headers: a certificate counts before a token. Without credentials that is somebody anonymous, who may do little.
pub(crate) fn authenticate(
    world: &World,
    certified: Option<Identity>,
    headers: &HeaderMap,
    path: &str,
) -> Result<Identity, Failure> {
    if let Some(who) = certified {
        return impersonate(world, who, headers, path);
    }
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(Identity::anonymous());
    };
    let token = header.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let who = token.and_then(|token| world.rbac.identify(token));
    let who = who.ok_or_else(Failure::unauthorized)?;
    impersonate(world, who, headers, path)
}

fn impersonate(
    world: &World,
    who: Identity,
    headers: &HeaderMap,
    path: &str,
) -> Result<Identity, Failure> {
    let values = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter();
        all.filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .collect()
    };
    let groups = values("impersonate-group");
    let Some(user) = values("impersonate-user").into_iter().next() else {
        if groups.is_empty() {
            return Ok(who);
        }
        let message = format!(
            "Internal Server Error: \"{path}\": requested [{{Group  {}    }}] without \
             impersonating a user",
            groups.join(" "),
        );
        return Err(Failure::plain(StatusCode::INTERNAL_SERVER_ERROR, message));
    };
    let account = user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let as_user = account.map_or_else(
        || impersonation("users", "", &user),
        |(namespace, name)| impersonation("serviceaccounts", namespace, name),
    );
    authorize(world, &who, &as_user)?;
    for group in &groups {
        authorize(world, &who, &impersonation("groups", "", group))?;
    }
    Ok(world.rbac.impersonated(&user, groups))
}

fn impersonation(resource: &str, namespace: &str, name: &str) -> Ask {
    Ask {
        verb: "impersonate".into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Ask::default()
    }
}

/// Fails with the real server's wording when RBAC says no.
pub(crate) fn authorize(world: &World, who: &Identity, ask: &Ask) -> Result<(), Failure> {
    if world.rbac.allows(who, ask) {
        Ok(())
    } else {
        Err(forbidden(who, ask))
    }
}

fn forbidden(who: &Identity, ask: &Ask) -> Failure {
    let qualified = if ask.group.is_empty() {
        ask.resource.clone()
    } else {
        format!("{}.{}", ask.resource, ask.group)
    };
    let named = if ask.name.is_empty() {
        String::new()
    } else {
        format!(" \"{}\"", ask.name)
    };
    let place = if ask.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", ask.namespace)
    };
    let message = format!(
        "{qualified}{named} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
        who.name,
        ask.verb,
        ask.full_resource(),
        ask.group,
    );
    let mut details = json!({"kind": ask.resource});
    if !ask.name.is_empty() {
        details["name"] = json!(ask.name);
    }
    if !ask.group.is_empty() {
        details["group"] = json!(ask.group);
    }
    Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(details)
}

/// Everybody may ask for health and version, everybody known for discovery, administrators for
/// anything.
pub(crate) fn may_read_path(
    world: &World,
    who: &Identity,
    method: &Method,
    path: &str,
) -> Result<(), Failure> {
    let first = path.split('/').nth(1).unwrap_or_default();
    let open = match first {
        "healthz" | "livez" | "readyz" | "version" => true,
        "api" | "apis" | "openapi" => !who.is_anonymous(),
        _ => false,
    };
    if (open && method == Method::GET) || world.rbac.is_admin(who) {
        return Ok(());
    }
    let verb = method.as_str().to_ascii_lowercase();
    let message = format!(
        "forbidden: User \"{}\" cannot {verb} path \"{path}\"",
        who.name
    );
    Err(Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(json!({})))
}
