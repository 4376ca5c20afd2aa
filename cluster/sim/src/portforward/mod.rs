//! `pods/portforward` in its three wire forms, with the habits of the servers along the way: API
//! server, kubelet, container runtime.

mod copy;
mod spdy;
mod tunnel;
mod upgrade;
mod v4;
mod wire;
mod ws;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;

use self::copy::{Down, Up};
use self::upgrade::Accepted;
use crate::api::auth;
use crate::api::query::Query;
use crate::counters::Form;
use crate::http::{self, Answer, Failure};
use crate::node::DialError;
use crate::options::Habits;
use crate::rbac::{Ask, Identity};
use crate::resources::PODS;
use crate::task::Tasks;
use crate::world::World;

/// Answers a port-forward request whose own verb is authorised already.
pub(crate) fn answer(
    world: Arc<World>,
    connection: Tasks,
    mut request: Request<Incoming>,
    ask: &Ask,
    query: &Query,
    who: &Identity,
) -> Result<Answer, Failure> {
    let habits = world.habits();
    if habits.create_check && request.method() == Method::GET {
        let create = Ask {
            verb: "create".into(),
            ..ask.clone()
        };
        if auth::authorize(&world, who, &create).is_err() {
            // A check of the handler's own, which has no words for it.
            let message = format!("pods \"{}\" is forbidden: ", ask.name);
            let details = json!({"name": ask.name, "kind": "pods"});
            let failure = Failure::new(StatusCode::FORBIDDEN, "Forbidden", message);
            return Err(failure.with_details(details));
        }
    }
    if let Some((code, message)) = world.faults.api().refusing {
        let failure = Failure::of_code(code, &message);
        return if message.is_empty() {
            Ok(http::bare(failure.code()))
        } else {
            Err(failure)
        };
    }
    let pod = world
        .store
        .get(PODS.plural, &ask.namespace, &ask.name)
        .ok_or_else(|| Failure::not_found(PODS.plural, "", &ask.name))?;
    if pod["spec"]["nodeName"].is_null() {
        let message = format!("pod {} does not have a host assigned", ask.name);
        return Err(Failure::bad_request(message));
    }
    let (answer, accepted) = match upgrade::negotiate(request.headers(), query, &habits)? {
        Ok(accepted) => (accepted.answer(), accepted),
        Err(refusal) => return Ok(refusal),
    };
    let Some(sandbox) = world.sandbox(&ask.namespace, &ask.name) else {
        let text = format!("pod not found (\"{}_{}\")", ask.name, ask.namespace);
        return Ok(http::text(StatusCode::INTERNAL_SERVER_ERROR, &text));
    };
    world.counters.upgrade(accepted.form());
    let forward = Arc::new(Forward {
        world,
        habits,
        namespace: ask.namespace.clone(),
        pod: ask.name.clone(),
        sandbox,
    });
    connection.spawn(async move {
        // A client that left before it had its answer gets no service.
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else {
            return;
        };
        let _counted = forward.world.counters.forwards.enter();
        let io = TokioIo::new(upgraded);
        match accepted {
            Accepted::Spdy => {
                spdy::serve(io, forward).await;
            }
            Accepted::Tunnel { .. } => tunnel::serve(io, forward).await,
            Accepted::V4 { ports, coding, .. } => v4::serve(io, forward, ports, coding).await,
        }
    });
    Ok(answer)
}

impl Accepted {
    fn form(&self) -> Form {
        match self {
            Self::Spdy => Form::Spdy,
            Self::Tunnel { .. } => Form::Tunnel,
            Self::V4 { .. } => Form::V4,
        }
    }
}

/// What the streams of one port-forward connection need to know.
struct Forward {
    world: Arc<World>,
    habits: Habits,
    namespace: String,
    pod: String,
    sandbox: String,
}

impl Forward {
    /// Dials a port of the pod and copies until it is over; the error is the text that the
    /// kubelet puts on the error stream.
    async fn connect<U: Up, D: Down>(
        &self,
        port: u16,
        up: &mut U,
        down: &mut D,
    ) -> Result<(), String> {
        let sandbox = &self.sandbox;
        let dialled = self
            .world
            .dial(&self.namespace, &self.pod, sandbox, port)
            .await;
        let copied = match dialled {
            Ok(pod) => copy::both_ways(pod, up, down, self.habits.eof_grace)
                .await
                .map_err(|error| DialError::Broken(port, error)),
            Err(error) => Err(error),
        };
        copied.map_err(|error| {
            let cause = error.text(sandbox);
            format!("error forwarding port {port} to pod {sandbox}, uid : {cause}")
        })
    }
}
