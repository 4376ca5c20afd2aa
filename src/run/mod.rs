//! The program that is put inside the cluster: its environment, its process, and the container
//! engine that may stand between.
//!
//! * [`environment`]: the variables that make common runtimes use the proxy
//! * [`child`]: a process that behaves as if kdev were not there
//! * `capture`: a network of its own for the command (Linux)
//! * `held`: connects that wait for kdev, for a command without one
//! * [`publish`]: which of its ports are reachable under another address
//! * [`shell`]: an interactive shell, which says where it is
//! * [`container`]: `docker run` and its kin: a listener the container can reach, the variables
//!   by a descriptor, the addresses of what was started
//!
//! Nothing here knows Kubernetes or opens a listener by itself: `app` composes.

#[cfg(target_os = "linux")]
pub mod capture;
pub mod child;
pub mod container;
pub mod environment;
#[cfg(target_os = "linux")]
pub mod held;
pub mod publish;
pub mod shell;
