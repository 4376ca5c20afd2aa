//! A simulated cluster with a relay's Deployment in it, and a team's Service.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kdev::addr::{Host, Target};
use kdev::dial::DialError;
use kdev::intercept::{
    Change, Claim, Judge, OnRecord, Redirect as _, RedirectError, Redirected as _, Told, Verdict,
    Wanted,
};
use kdev::k8s::Client;
use kdev::k8s::redirect::list::Scope;
use kdev::k8s::redirect::sweep::{Last, Stays, clear};
use kdev::k8s::redirect::{Doing, Guard, Redirector, Replica, Ways};
use kdev_sim::{Options, Pod, Rule, SimCluster, User};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::relays::ready_relays;
use crate::support::{World, within};

/// How long what takes milliseconds may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const SERVICES: &str = "/api/v1/namespaces/shop/services";

/// The relay's Deployment.
pub(crate) const RELAY: &str = "/apis/apps/v1/namespaces/shop/deployments/kdev-relay";

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) client: Client,
    /// What can be tried from inside of the cluster.
    pub(crate) inside: Inside,
    /// What users were told.
    pub(crate) said: Arc<Mutex<Vec<String>>>,
}

/// What can be tried from inside of the cluster, and what was. Cloning is shallow.
#[derive(Clone, Default)]
pub(crate) struct Inside {
    /// What becomes of it.
    pub(crate) answers: Arc<Mutex<Answers>>,
    /// What the relay's pods dialled.
    pub(crate) asked: Arc<Mutex<Vec<(String, Target)>>>,
}

/// What becomes of what is tried: an error, or it works.
#[derive(Default)]
pub(crate) struct Answers {
    /// Of dialling the original pods.
    pub(crate) pods: Option<DialError>,
    /// Of dialling the original pods at one port of the block, the third for example.
    pub(crate) port: Option<(u16, DialError)>,
    /// Of dialling one replica from the other.
    pub(crate) relays: Option<DialError>,
    /// What a pod itself says of its ports.
    pub(crate) listens: Option<DialError>,
}

impl Ways for Inside {
    fn to<'a>(&'a self, replica: &'a str) -> Doing<'a, Result<Arc<dyn Replica>, DialError>> {
        let one = One(replica.to_owned(), self.clone());
        Box::pin(async move { Ok(Arc::new(one) as Arc<dyn Replica>) })
    }

    fn listens<'a>(&'a self, _: &'a str, _: &'a str, _: u16) -> Doing<'a, Result<(), DialError>> {
        let answer = self.answers.lock().unwrap().listens.clone();
        Box::pin(async move { answer.map_or(Ok(()), Err) })
    }
}

/// A replica.
struct One(String, Inside);

impl Replica for One {
    fn dial<'a>(&'a self, target: &'a Target) -> Doing<'a, Result<(), DialError>> {
        let Self(name, inside) = self;
        let tried = (name.clone(), target.clone());
        inside.asked.lock().unwrap().push(tried);
        let answers = inside.answers.lock().unwrap();
        let port = answers.port.clone();
        let port = port.filter(|(port, _)| (target.port - 20_000) % 8 == *port);
        let answer = match (&target.host, port) {
            (Host::Ip(_), _) => answers.relays.clone(),
            (Host::Name(_), Some((_, error))) => Some(error),
            (Host::Name(_), None) => answers.pods.clone(),
        };
        Box::pin(async move { answer.map_or(Ok(()), Err) })
    }

    fn close(&self) -> Doing<'_, ()> {
        Box::pin(async {})
    }
}

impl Stage {
    /// Clears away what is for late callers, as where none can come.
    pub(crate) async fn clear(&self) {
        let left = self.cleared(Last::NoRelay).await;
        assert!(left.is_empty(), "{left:?}");
    }

    /// The same where this is known of late callers; gives what stays.
    pub(crate) async fn cleared(&self, last: Last) -> Vec<Stays> {
        let scope = Scope::Namespace("shop".to_owned());
        let cleared = clear(&self.client, &scope, &|_| true, &last, Duration::ZERO);
        cleared.await.unwrap()
    }

    pub(crate) async fn set_up() -> Self {
        let cluster = SimCluster::start(Options::default()).await.unwrap();
        let world = World::around(cluster);
        world.cluster.add_namespace("shop");
        let user = User::new("dev").rules(Rule::edit("shop"));
        let client = world.client_with(user, "dev").await;
        for number in 1..=2 {
            let pod = Pod::new("shop", &format!("web-{number}")).label("app", "web");
            world
                .cluster
                .add_pod(pod.port("http", 8080).port("admin", 9090));
        }
        let stage = Self {
            world,
            client,
            inside: Inside::default(),
            said: Arc::default(),
        };
        stage.install(&["app"]).await;
        stage
    }

    /// A relay whose pods carry labels for these keys.
    async fn install(&self, keys: &[&str]) {
        let mut labels =
            json!({"app.kubernetes.io/name": "kdev-relay", "app.kubernetes.io/managed-by": "kdev"});
        for key in keys {
            labels[*key] = json!("kdev-relay");
        }
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "kdev-relay", "namespace": "shop", "labels": labels},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app.kubernetes.io/name": "kdev-relay"}},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "relay", "image": "x"}]},
                },
            },
        });
        let path = "/apis/apps/v1/namespaces/shop/deployments";
        self.client.post::<Value>(path, &deployment).await.unwrap();
        within(LIMIT, "the relay's pods", || self.relays().len() == 2).await;
    }

    /// Has the relay run so many replicas.
    pub(crate) async fn scale_relay(&self, replicas: u32) {
        let scale = json!({"spec": {"replicas": replicas}});
        self.client.merge::<Value>(RELAY, &scale).await.unwrap();
    }

    /// Names of the relay's pods that are ready.
    pub(crate) fn relays(&self) -> Vec<String> {
        ready_relays(&self.world.cluster)
    }

    /// What is tried from inside of the cluster comes out so from now on.
    pub(crate) fn answers(&self, set: impl FnOnce(&mut Answers)) {
        set(&mut self.inside.answers.lock().unwrap());
    }

    pub(crate) fn redirector(&self) -> Redirector {
        self.redirector_as(&self.client)
    }

    pub(crate) fn redirector_as(&self, client: &Client) -> Redirector {
        Redirector::new(
            client,
            "shop",
            Arc::new(self.inside.clone()),
            &self.world.tasks,
        )
    }

    /// The team's Service, as the team applies it.
    pub(crate) fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "labels": {"team": "a"}, "annotations": {"note": "b"}},
            "spec": {
                "type": "NodePort",
                "selector": {"app": "web"},
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "appProtocol": "http"},
                    {"name": "same", "port": 8080, "protocol": "TCP", "targetPort": 8080},
                    {"name": "admin", "port": 9090, "protocol": "TCP", "targetPort": 9090},
                ],
            },
        })
    }

    /// Applies on the server's side as the team.
    pub(crate) async fn apply(&self, manifest: &Value) -> Result<Value, kdev::k8s::ClientError> {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let path = format!("{SERVICES}/{name}?fieldManager=team");
        self.client.apply(&path, manifest).await
    }

    pub(crate) fn service(&self, name: &str) -> Option<Value> {
        self.world.cluster.object("services", "shop", name)
    }

    /// A Service without what counts changes.
    pub(crate) fn as_it_is(&self, name: &str) -> Value {
        let mut object = self.service(name).unwrap();
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.remove("resourceVersion");
        metadata.remove("generation");
        object
    }

    /// The origins there are.
    pub(crate) fn origins(&self) -> Vec<Value> {
        let all = self.world.cluster.objects("services", "shop").into_iter();
        let own = |service: &Value| service["metadata"]["labels"]["kdev.dev/origin-of"].is_string();
        all.filter(own).collect()
    }

    /// Addresses and port numbers behind a Service.
    pub(crate) fn behind(&self, name: &str) -> Vec<(String, u64)> {
        let endpoints = self
            .world
            .cluster
            .object("endpoints", "shop", name)
            .unwrap();
        let mut all = Vec::new();
        for subset in endpoints["subsets"].as_array().into_iter().flatten() {
            for address in subset["addresses"].as_array().into_iter().flatten() {
                for port in subset["ports"].as_array().into_iter().flatten() {
                    let pod = address["targetRef"]["name"].as_str().unwrap();
                    all.push((pod.to_owned(), port["port"].as_u64().unwrap()));
                }
            }
        }
        all.sort();
        all
    }

    pub(crate) async fn redirect(&self, id: &str) -> Result<Guard, RedirectError> {
        self.redirector().redirect(self.wanted(id)).await
    }

    /// A claim that gets along with all others, and says what is said.
    pub(crate) fn wanted(&self, id: &str) -> Wanted {
        let said = self.said.clone();
        Wanted {
            say: Arc::new(move |told| {
                let (Told::Note(text) | Told::Step(text)) = told;
                said.lock().unwrap().push(text);
            }),
            ..wanted(id)
        }
    }
}

/// A claim that gets along with all others.
pub(crate) fn wanted(id: &str) -> Wanted {
    judged(id, Arc::new(|_, _| Verdict::Admitted))
}

pub(crate) fn judged(id: &str, judge: Judge) -> Wanted {
    let claim: Claim =
        serde_json::from_value(json!({"id": id, "owner": format!("owner of {id}")})).unwrap();
    Wanted {
        service: "web".to_owned(),
        port: 80,
        claim,
        say: Arc::new(|_| {}),
        judge,
        force: false,
        on_record: OnRecord::default(),
        told_to_end: CancellationToken::new(),
    }
}

/// A claim that gets along with nobody.
pub(crate) fn alone(id: &str) -> Wanted {
    let judge: Judge = Arc::new(|others, _| match others.first() {
        None => Verdict::Admitted,
        Some(other) => Verdict::Conflict(format!("{} has it", other.owner)),
    });
    judged(id, judge)
}

/// The next thing that happens to it.
pub(crate) async fn next(guard: &mut Guard) -> Change {
    let changed = tokio::time::timeout(LIMIT, guard.changed());
    changed.await.expect("something happens")
}
