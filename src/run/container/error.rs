//! Why a container cannot be put into the cluster.

use std::time::Duration;

/// What is wrong with a container command, or with its engine. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// `create` starts nothing that kdev could stay with.
    #[error(
        "`{engine} create` is not supported: the container would start later, without kdev and \
         its way to the cluster; use `{engine} run`"
    )]
    Create {
        /// The engine's command.
        engine: String,
    },
    /// Compose would start what kdev could not bring into the cluster.
    #[error("`{command}` is not supported: {reason}")]
    Compose {
        /// The command, for example `docker compose create`.
        command: String,
        /// Why, and what to do.
        reason: String,
    },
    /// sudo closes the descriptor that carries the variables.
    #[error(
        "`{sudo} {engine} run` does not work under kdev: {sudo} closes the descriptor that \
         carries the variables; run `{sudo} kdev run -- {engine} run …`, or let your user talk to \
         {engine} itself"
    )]
    Sudo {
        /// sudo or doas.
        sudo: String,
        /// The engine's command.
        engine: String,
    },
    /// The container has no network.
    #[error(
        "the container has no network (`--network none`), so it cannot reach the cluster; leave \
         the flag out"
    )]
    NoNetwork,
    /// The network does not lead to this machine.
    #[error(
        "the network {network:?} has the driver {driver:?}, through which containers do not reach \
         this machine; use a bridge network (`{engine} network create NAME`)"
    )]
    Driver {
        /// The network's name.
        network: String,
        /// Its driver.
        driver: String,
        /// The engine's command.
        engine: String,
    },
    /// The network has no address on this machine.
    #[error("the network {network:?} has no gateway address on this machine: {reason}")]
    NoGateway {
        /// The network's name.
        network: String,
        /// Why.
        reason: String,
    },
    /// The engine runs on another machine.
    #[error(
        "{engine} runs its containers on another machine ({endpoint}), which cannot reach the \
         proxy here; use a local engine, for example `{engine} --context default`, or run kdev on \
         that machine"
    )]
    Remote {
        /// The engine's command.
        engine: String,
        /// Where it runs.
        endpoint: String,
    },
    /// This machine has only loopback addresses, and the engine is rootless.
    #[error(
        "rootless {engine} reaches this machine by its network address only, and it has none \
         (is the network down?): {reason}"
    )]
    NoAddress {
        /// The engine's command.
        engine: String,
        /// What the system said.
        reason: String,
    },
    /// A question to the engine failed.
    #[error("`{command}` failed: {reason}")]
    Engine {
        /// What kdev ran.
        command: String,
        /// What the engine said.
        reason: String,
    },
    /// The engine did not answer.
    #[error("`{command}` did not answer within {} s; is the engine running?", .after.as_secs())]
    Timeout {
        /// What kdev ran.
        command: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The address for the container's listener is not one of this machine.
    #[error(
        "the container would reach this machine at {address}, and the proxy cannot listen there: \
         {reason}; the engine probably runs in a virtual machine or on another machine"
    )]
    Listen {
        /// The address.
        address: std::net::IpAddr,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The descriptor or the directory for the engine could not be made.
    #[error("the variables cannot be handed to the container: {0}")]
    HandOver(#[from] std::io::Error),
}
