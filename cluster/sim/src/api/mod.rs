//! The API server: who asks, may they, and who answers.

pub(crate) mod auth;
mod discovery;
mod options;
mod protobuf;
pub(crate) mod query;
mod read;
mod review;
mod route;
mod selector;
mod services;
mod table;
mod watch;
mod write;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, WARNING};
use hyper::{Method, Request, StatusCode};

use self::options::ListOptions;
use self::query::Query;
use self::read::Form;
use self::route::{Route, Target};
use crate::http::{self, Answer, Failure};
use crate::portforward;
use crate::rbac::Identity;
use crate::resources::{ENDPOINTS, PODS};
use crate::task::Tasks;
use crate::world::World;

/// Endpoints are announced as deprecated since this minor version.
const ENDPOINTS_DEPRECATED: u32 = 33;

/// Answers one request. `connection` owns what outlives the answer: watches and upgrades.
/// `certified` is who the client's certificate says it is.
pub(crate) async fn answer(
    world: Arc<World>,
    connection: Tasks,
    certified: Option<Identity>,
    request: Request<Incoming>,
) -> Answer {
    world.faults.pass_api().await;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let route = route::parse(&world, request.method(), request.uri().path(), &query);
    let (verb, resource) = route.counted(request.method());
    world.counters.request(&verb, &resource);
    if let Some((code, message)) = world.faults.api().failing {
        return Failure::of_code(code, &message).answer();
    }
    if let Some((code, retry_after)) = world.faults.turns_away(request.uri().path()) {
        return http::turned_away(code, retry_after);
    }
    let deprecated = matches!(&route, Route::Resource(target) if target.resource == &ENDPOINTS)
        && world.options.minor() >= ENDPOINTS_DEPRECATED;
    let mut answer = match serve(world, connection, certified, request, route, query).await {
        Ok(answer) => answer,
        Err(failure) => failure.answer(),
    };
    if deprecated {
        answer.headers_mut().insert(
            WARNING,
            HeaderValue::from_static(
                "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 \
                 EndpointSlice\"",
            ),
        );
    }
    answer
}

async fn serve(
    world: Arc<World>,
    connection: Tasks,
    certified: Option<Identity>,
    request: Request<Incoming>,
    route: Route,
    query: Query,
) -> Result<Answer, Failure> {
    let ask = match &route {
        Route::Path(_) => None,
        Route::Resource(Target { ask, .. }) | Route::Unknown(ask) => Some(ask),
    };
    let path = request.uri().path();
    let who = auth::authenticate(&world, certified, request.headers(), path, ask)?;
    match route {
        Route::Path(path) => {
            auth::may_read_path(&world, &who, request.method(), &path)?;
            Ok(discovery::answer(&world, &path))
        }
        Route::Unknown(ask) => {
            auth::authorize(&world, &who, &ask)?;
            Ok(http::page_not_found())
        }
        Route::Resource(target) => {
            auth::authorize(&world, &who, &target.ask)?;
            dispatch(world, connection, request, target, query, &who).await
        }
    }
}

async fn dispatch(
    world: Arc<World>,
    connection: Tasks,
    request: Request<Incoming>,
    target: Target,
    query: Query,
    who: &Identity,
) -> Result<Answer, Failure> {
    if target.resource == &PODS && target.ask.subresource == "portforward" {
        return portforward::answer(world, connection, request, &target.ask, &query, who);
    }
    if !target.ask.subresource.is_empty() {
        return Ok(http::page_not_found());
    }
    let as_table = table::is_wanted(request.headers());
    match target.ask.verb.as_str() {
        "create" if target.resource.is_review() => {
            review::answer(&world, who, &target, request.into_body()).await
        }
        "create" | "update" | "patch" | "delete" if target.resource.served(&target.ask.verb) => {
            write::answer(&world, &target, &query, request).await
        }
        "get" if target.resource.served("get") => read::get(&world, &target, as_table),
        "list" if target.resource.served("list") => {
            let options = ListOptions::parse(target.resource, &query)?;
            let form = match table::is_wanted(request.headers()) {
                true => Form::Table,
                false if table::is_metadata_wanted(request.headers()) => Form::Metadata,
                false => Form::Whole,
            };
            read::list(&world, &target, options, form)
        }
        "watch" if target.resource.served("watch") => {
            let options = ListOptions::parse(target.resource, &query)?;
            Ok(watch::answer(
                &world,
                &connection,
                &target,
                options,
                as_table,
            ))
        }
        _ => Err(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )),
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}
