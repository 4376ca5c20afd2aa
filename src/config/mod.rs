//! The settings of a session: where they come from, and what they are, validated once.
//!
//! Flags win over the environment (`KDEV_…`), that over the project's file (`.kdev.toml`), that
//! over the user's file (`config.toml`), that over defaults. [`SETTINGS`] has one entry for each
//! setting, and flags, variables, keys of files, the JSON schema and `kdev config` follow from it.
//!
//! A project's file comes with a repository, so it is trusted with what a session is about and
//! with nothing that runs programs, opens this machine to others, or says who the user is: see
//! [`Project`].

mod capture;
mod file;
mod layers;
mod objects;
mod place;
mod schema;
mod setting;
mod table;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::ClusterDomain;
use crate::dial::Routes;
use crate::k8s::KubeOptions;
use crate::k8s::install::shape;
use crate::k8s::kubeconfig::Environment;
use crate::k8s::relay::Carrier;
use crate::run::environment::AllProxy;
use crate::upstream::{Helper, Proxies, ProxyVars};

pub use crate::dial::Via;
pub use capture::Capture;
pub use file::{Kin, Problem, check};
pub use layers::{Given, Layered, Origin, load};
pub use place::{PROJECT_FILE, Place, PlaceError};
pub use schema::schema;
pub use setting::{Fallback, Kind, Project, Setting, Value};
pub use table::{SETTINGS, on, setting};

/// What a session needs to know before it opens anything.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Which cluster, user and namespace.
    pub kube: KubeOptions,
    /// How streams reach the cluster.
    pub via: Via,
    /// What carries the tunnels to the relay; the best that works by default.
    pub carrier: Option<Carrier>,
    /// Where the proxy listens; a free port of loopback by default.
    pub proxy_listen: Option<SocketAddr>,
    /// Where the DNS server listens; a free port of loopback by default.
    pub dns_listen: Option<SocketAddr>,
    /// What `ALL_PROXY` says to programs.
    pub all_proxy: AllProxy,
    /// Whether containers may dial the laptop's own loopback through kdev.
    pub host_loopback: bool,
    /// The program that logs in to the corporate proxy.
    pub proxy_auth_helper: Option<Helper>,
    /// Whether `run` takes its own session even where a `connect` of the same runs.
    pub own_session: bool,
    /// The cluster's DNS domain, where it is known.
    pub cluster_domain: ClusterDomain,
    /// What goes into the cluster whatever the catalog says, as the user wrote it.
    pub also_proxy: Vec<String>,
    /// What goes past the cluster whatever the catalog says, as the user wrote it.
    pub never_proxy: Vec<String>,
    /// Which names only the cluster's DNS is asked about, as the user wrote it.
    pub resolve_in_cluster: Vec<String>,
    /// These three, read.
    pub routes: Routes,
    /// How a command's connections come to kdev.
    pub capture: Capture,
    /// Whose intercepts these are; this machine's user where nobody says.
    pub owner: Option<String>,
    /// Whether requests say that they are this user's, where a Service is intercepted with `--mine`.
    pub mine_header: MineHeader,
    /// What is asked of the objects that kdev puts into the cluster.
    pub shape: shape::Asked,
    /// How long a credential plugin may take.
    pub login_timeout: Option<Duration>,
    /// The form of the log.
    pub log_format: LogFormat,
    /// What the command line said, as the variables that say the same to a kdev that this one starts.
    pub command_line: Vec<(String, String)>,
}

impl Config {
    /// The environment of this process, with the proxies that this session goes through.
    #[must_use]
    pub fn environment(&self) -> Environment {
        Environment {
            proxies: Proxies::new(ProxyVars::of_process(), self.proxy_auth_helper.clone()),
            login_timeout: self.login_timeout,
            ..Environment::of_process()
        }
    }

    /// A number that is equal for two settings under which a session does the same for programs of
    /// this laptop. Which cluster and user it is stands in the kubeconfig.
    #[must_use]
    pub fn behaviour(&self) -> u64 {
        // Without `..`: each setting that is added has to be thought of here.
        let Self {
            kube: _,
            via,
            carrier,
            proxy_listen: _,
            dns_listen: _,
            all_proxy: _,
            host_loopback: _,
            proxy_auth_helper,
            own_session: _,
            capture: _,
            owner,
            mine_header,
            shape: _,
            login_timeout: _,
            cluster_domain,
            also_proxy: _,
            never_proxy: _,
            resolve_in_cluster: _,
            routes,
            log_format: _,
            command_line: _,
        } = self;
        // What stands in a proxy's URL is nobody's to read.
        let mut hash = DefaultHasher::new();
        let proxies = (ProxyVars::of_process(), proxy_auth_helper);
        format!("{via:?} {carrier:?} {proxies:?} {cluster_domain:?} {routes:?}").hash(&mut hash);
        let whose = (*mine_header == MineHeader::On).then_some(owner);
        whose.hash(&mut hash);
        hash.finish()
    }

    /// Reads the rules of all three settings, which may contradict each other.
    fn read_routes(&mut self) -> Result<(), String> {
        let (also, never) = (&self.also_proxy, &self.never_proxy);
        let routes = Routes::parse(also, never, &self.resolve_in_cluster);
        self.routes = routes.map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// Whether requests that go through the proxy say that they are this user's, where a Service is
/// intercepted with `--mine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MineHeader {
    /// They do.
    #[default]
    On,
    /// They are as programs send them.
    Off,
}

/// The form of the log on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Sentences.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
