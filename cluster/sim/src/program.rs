//! What runs in the containers of pods that a Deployment made.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::pod::Backend;
use crate::resources::{CONFIG_MAPS, SECRETS};
use crate::world::World;

type Running = Pin<Box<dyn Future<Output = Exit> + Send>>;
type Program = Arc<dyn Fn(Container) -> Running + Send + Sync>;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Exit {
    /// As it should.
    #[must_use]
    pub fn ok() -> Self {
        Self {
            code: 0,
            message: String::new(),
        }
    }

    /// With this code, and this as the last that it said.
    #[must_use]
    pub fn failed(code: i32, message: &str) -> Self {
        Self {
            code,
            message: message.to_owned(),
        }
    }
}

/// A container, as the program in it sees it.
#[derive(Clone)]
pub struct Container {
    pub(crate) world: Arc<World>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) pod_spec: Value,
    pub(crate) spec: Value,
    pub(crate) stop: CancellationToken,
}

impl Container {
    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &str {
        self.spec["image"].as_str().unwrap_or_default()
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<String> {
        let variables = self.spec["env"].as_array()?;
        let variable = variables.iter().find(|variable| variable["name"] == name)?;
        variable["value"].as_str().map(str::to_owned)
    }

    /// A file of a mounted Secret, or of mounted ConfigMaps, as it is now.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let mounts = self.spec["volumeMounts"].as_array()?;
        mounts.iter().find_map(|mount| {
            let below = path.strip_prefix(mount["mountPath"].as_str()?)?;
            let volumes = self.pod_spec["volumes"].as_array()?;
            let volume = volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"])?;
            self.volume_file(volume, below.strip_prefix('/')?)
        })
    }

    fn volume_file(&self, volume: &Value, path: &str) -> Option<Vec<u8>> {
        if let Some(name) = volume["secret"]["secretName"].as_str() {
            let secret = self
                .world
                .store
                .get(SECRETS.plural, &self.namespace, name)?;
            return decoded(&secret["data"][path]);
        }
        let sources = volume["projected"]["sources"].as_array()?;
        sources.iter().find_map(|source| {
            let source = &source["configMap"];
            let items = source["items"].as_array()?;
            let item = items.iter().find(|item| item["path"] == path)?;
            let name = source["name"].as_str()?;
            let map = self
                .world
                .store
                .get(CONFIG_MAPS.plural, &self.namespace, name)?;
            decoded(&map["binaryData"][item["key"].as_str()?])
        })
    }

    /// Sends connections to a port of the pod on to this socket.
    pub fn serve(&self, port: u16, to: SocketAddr) {
        self.world
            .change_pod(&self.namespace, &self.pod, |running| {
                running.pod.backends.insert(port, Backend::Address(to));
            });
    }

    /// Says that the program listens by itself, at this address of the machine: every port of the
    /// pod that was not [given](Container::serve) is the same port there.
    pub fn listens_at(&self, ip: IpAddr) {
        self.world
            .change_pod(&self.namespace, &self.pod, |running| {
                running.pod.network = Some(ip);
            });
    }

    /// Passes the readiness probe from now on.
    pub fn ready(&self) {
        self.world
            .change_pod(&self.namespace, &self.pod, |running| {
                running.set_ready(true)
            });
    }

    /// Completes when the pod is asked to end.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

fn decoded(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

/// The programs, by the names of their containers.
#[derive(Default)]
pub(crate) struct Programs(Mutex<HashMap<String, Program>>);

impl Programs {
    pub(crate) fn add<F, Fut>(&self, container: &str, program: F)
    where
        F: Fn(Container) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Exit> + Send + 'static,
    {
        let program = move |container| -> Running { Box::pin(program(container)) };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(container.to_owned(), Arc::new(program));
    }

    /// Starts what runs in a container; by default something that is ready at once and waits for
    /// its end.
    pub(crate) fn start(&self, name: &str, container: Container) -> Running {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name) {
            Some(program) => program(container),
            None => Box::pin(async move {
                container.ready();
                container.stopped().await;
                Exit::ok()
            }),
        }
    }

    /// Whether something was registered for containers of this name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(name)
    }
}
