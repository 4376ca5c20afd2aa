//! The node's part in a pod that a Deployment made: a place, images, init containers, programs,
//! and its end.

use std::future::Future as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::made::State;
use crate::pod::Phase;
use crate::program::{Container, Exit};
use crate::world::World;

/// How often a pod looks for a node, and for an image that could not be had. Real ones wait
/// longer with each try.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a container that ended twice waits: the real one's first back-off.
const BACK_OFF: Duration = Duration::from_secs(10);

/// Takes a pod from its creation to its end.
pub(crate) async fn run(world: Arc<World>, namespace: String, name: String) {
    let Some((stop, gone, spec, grace)) = world.made(&namespace, &name) else {
        return;
    };
    let sandbox = Sandbox {
        world,
        namespace,
        name,
        spec,
        stop: stop.clone(),
    };
    let life = async {
        tokio::select! {
            () = sandbox.live() => {}
            () = async {
                stop.cancelled().await;
                tokio::time::sleep(grace).await;
            } => {}
        }
    };
    gone.run_until_cancelled(life).await;
    sandbox.world.remove_pod(&sandbox.namespace, &sandbox.name);
}

struct Sandbox {
    world: Arc<World>,
    namespace: String,
    name: String,
    spec: Value,
    stop: CancellationToken,
}

impl Sandbox {
    /// Runs until it is asked to end and has ended.
    async fn live(&self) {
        let start = async {
            self.find_node().await;
            for container in containers(&self.spec, "initContainers") {
                self.run_to_end(container).await;
            }
            for container in containers(&self.spec, "containers") {
                self.pull(container).await;
            }
        };
        // Before its programs run there is nothing to wait for.
        if self.stop.run_until_cancelled(start).await.is_none() {
            return;
        }
        self.world
            .change_pod(&self.namespace, &self.name, |running| {
                running.pod.phase = Phase::Running;
            });
        let programs = containers(&self.spec, "containers").map(|c| self.keep_running(c));
        let mut programs: Vec<_> = programs.map(Box::pin).collect();
        std::future::poll_fn(|cx| {
            programs.retain_mut(|program| program.as_mut().poll(cx).is_pending());
            match programs.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    async fn find_node(&self) {
        while self.world.faults.nodes().full {
            let message = "0/1 nodes are available: 1 Insufficient memory.";
            self.place(Some(message));
            tokio::time::sleep(AGAIN).await;
        }
        self.place(None);
    }

    fn place(&self, message: Option<&str>) {
        self.world
            .change_pod(&self.namespace, &self.name, |running| {
                if let Some(made) = &mut running.pod.made {
                    made.unscheduled = message.map(str::to_owned);
                }
            });
    }

    /// Waits for the image.
    async fn pull(&self, container: &Value) {
        let image = container["image"].as_str().unwrap_or_default();
        let mut reason = "ErrImagePull";
        while self.world.faults.nodes().missing.as_deref() == Some(image) {
            let message = match reason {
                "ErrImagePull" => format!("failed to resolve reference \"{image}\": not found"),
                _ => format!("Back-off pulling image \"{image}\""),
            };
            self.set(container, State::Waiting(reason, message));
            tokio::time::sleep(AGAIN).await;
            reason = "ImagePullBackOff";
        }
    }

    /// Runs an init container; without a program for it, it does nothing and succeeds.
    async fn run_to_end(&self, container: &Value) {
        self.pull(container).await;
        let name = container["name"].as_str().unwrap_or_default();
        loop {
            let exit = match self.world.programs.knows(name) {
                true => {
                    self.set(container, State::Running);
                    self.world
                        .programs
                        .start(name, self.container(container))
                        .await
                }
                false => Exit::ok(),
            };
            let code = exit.code;
            self.set(container, State::Ended(code, exit.message.clone()));
            if code == 0 {
                return;
            }
            self.again(container, exit).await;
        }
    }

    /// Keeps the program running until it ends because it was asked to.
    async fn keep_running(&self, container: &Value) {
        let name = container["name"].as_str().unwrap_or_default();
        loop {
            self.set(container, State::Running);
            let exit = self
                .world
                .programs
                .start(name, self.container(container))
                .await;
            self.world
                .change_pod(&self.namespace, &self.name, |running| {
                    running.set_ready(false)
                });
            self.set(container, State::Ended(exit.code, exit.message.clone()));
            if self.stop.is_cancelled() {
                return;
            }
            let waited = self.stop.run_until_cancelled(self.again(container, exit));
            if waited.await.is_none() {
                return;
            }
        }
    }

    /// Waits until a container that ended is started again: at once the first time.
    async fn again(&self, container: &Value, exit: Exit) {
        let mut restarts = 0;
        self.change(container, |status| {
            restarts = status.restarts;
            status.restarts += 1;
            status.last = Some((exit.code, exit.message));
        });
        if restarts == 0 {
            return;
        }
        let name = container["name"].as_str().unwrap_or_default();
        let message = format!("back-off 10s restarting failed container={name}");
        self.set(container, State::Waiting("CrashLoopBackOff", message));
        tokio::time::sleep(BACK_OFF).await;
    }

    fn set(&self, container: &Value, state: State) {
        self.change(container, |status| status.state = state);
    }

    fn change(&self, container: &Value, change: impl FnOnce(&mut crate::made::Status)) {
        let name = container["name"].as_str().unwrap_or_default();
        self.world
            .change_pod(&self.namespace, &self.name, |running| {
                let made = running.pod.made.as_mut();
                if let Some(status) = made.and_then(|made| made.containers.get_mut(name)) {
                    change(status);
                }
            });
    }

    fn container(&self, spec: &Value) -> Container {
        Container {
            world: self.world.clone(),
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            pod_spec: self.spec.clone(),
            spec: spec.clone(),
            stop: self.stop.clone(),
        }
    }
}

fn containers<'a>(spec: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    spec[kind].as_array().into_iter().flatten()
}
