//! Authentication, impersonation and authorization, in the real server's words.

use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::json;

use crate::http::Failure;
use crate::rbac::{Ask, Identity};
use crate::world::World;

/// The first server with constrained impersonation.
const CONSTRAINED: u32 = 36;

/// Who sent these headers: a certificate counts before a token. Without credentials that is somebody
/// anonymous, who may do little. `ask` is what the request wants, where it is about a resource.
pub(crate) fn authenticate(
    world: &World,
    certified: Option<Identity>,
    headers: &HeaderMap,
    path: &str,
    ask: Option<&Ask>,
) -> Result<Identity, Failure> {
    if let Some(who) = certified {
        return impersonate(world, who, headers, path, ask);
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
    impersonate(world, who, headers, path, ask)
}

fn impersonate(
    world: &World,
    who: Identity,
    headers: &HeaderMap,
    path: &str,
    ask: Option<&Ask>,
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
    let as_groups = groups
        .iter()
        .map(|group| impersonation("groups", "", group));
    let all: Vec<Ask> = std::iter::once(as_user).chain(as_groups).collect();
    let constrained = if world.options.minor() >= CONSTRAINED {
        let mode = account.map_or("user-info", |_| "serviceaccount");
        constrained(world, &who, mode, &all, path, ask)
    } else {
        Err(None)
    };
    // The old verb allows it for everything; where nothing does, the new ones are named.
    if let Err(failure) = constrained {
        let old = all.iter().try_for_each(|ask| authorize(world, &who, ask));
        old.map_err(|old| failure.unwrap_or(old))?;
    }
    Ok(world.rbac.impersonated(&user, groups))
}

/// Whether constrained impersonation (KEP-5284) allows `who` to act in one request: by a right on
/// what is asked for and one on each part of the identity.
fn constrained(
    world: &World,
    who: &Identity,
    mode: &str,
    identity: &[Ask],
    path: &str,
    ask: Option<&Ask>,
) -> Result<(), Option<Failure>> {
    let Some(ask) = ask else {
        let verb = format!("impersonate-on:{mode}:get");
        return Err(Some(forbidden_path(who, &verb, path)));
    };
    let action = Ask {
        verb: format!("impersonate-on:{mode}:{}", ask.verb),
        ..ask.clone()
    };
    authorize(world, who, &action).map_err(Some)?;
    for part in identity {
        let part = Ask {
            verb: format!("impersonate:{mode}"),
            group: "authentication.k8s.io".into(),
            ..part.clone()
        };
        authorize(world, who, &part).map_err(Some)?;
    }
    Ok(())
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
    Err(forbidden_path(who, &verb, path))
}

fn forbidden_path(who: &Identity, verb: &str, path: &str) -> Failure {
    let message = format!(
        "forbidden: User \"{}\" cannot {verb} path \"{path}\"",
        who.name
    );
    Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(json!({}))
}
