//! The relay's objects in one namespace: what they look like, putting them there, waiting until
//! they work, and taking them away. The built-in role `edit` is enough for all of it.
//!
//! * [`binary`]: the relay's program as it travels where there is no registry to push to
//! * [`settings`]: what the user chose; [`shape`]: what policies of the cluster ask for of it
//! * [`manifest`]: the objects
//! * [`netpolicy`]: what lets callers of intercepted Services in
//! * [`limits`]: what the namespace's quotas and limits demand of its pods; [`room`]: whether there is
//!   room for them
//! * [`site`]: the namespace: what is there, what may be done
//! * [`trial`]: asking the API server for all of it without doing it
//! * [`change`]: applying and deleting; [`undo`]: taking back what a run has made
//! * [`rollout`]: waiting for pods, and why one does not start
//! * [`marks`](mod@marks): labels and annotations of what is there already

pub mod binary;
pub mod change;
mod error;
pub mod limits;
pub mod manifest;
pub mod marks;
pub mod netpolicy;
mod news;
pub mod rollout;
pub mod room;
pub mod settings;
pub mod shape;
pub mod site;
pub mod trial;
mod trouble;
pub mod undo;

/// The name of the Deployment, its PodDisruptionBudget and the forward Secret.
pub const NAME: &str = "kdev-relay";
/// The name of the Secret that admits intercepts.
pub const INTERCEPT_SECRET: &str = "kdev-relay-intercept";
/// The name of the ConfigMap in which intercepts keep whose each of the relay's ports is, or was.
/// Whoever may intercept may change it, and nothing else that the relay's pods are made of.
pub const PORTS: &str = "kdev-relay-ports";
/// Which program an object belongs to: the selector of the pods.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Who made an object.
pub const MANAGER_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value, and the field manager of every apply.
pub const MANAGER: &str = "kdev";
/// The Deployment's annotation with the version of the relay's program.
pub const VERSION_ANNOTATION: &str = "kdev.dev/version";
/// The Deployment's annotation with the sizes that the user chose.
pub const RESOURCES_ANNOTATION: &str = "kdev.dev/resources";
