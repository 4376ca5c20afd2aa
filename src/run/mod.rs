//! The program that is put inside the cluster: its environment, its process, and the container
//! engine that may stand between.
//!
//! * [`environment`]: the variables that make common runtimes use the proxy
//! * [`child`]: a process that behaves as if kdev were not there
//! * [`container`]: `docker run` and its kin: a listener the container can reach, the variables
//!   by a descriptor, the addresses of what was started
//!
//! Nothing here knows Kubernetes or opens a listener by itself: `app` composes.

pub mod child;
pub mod container;
pub mod environment;
