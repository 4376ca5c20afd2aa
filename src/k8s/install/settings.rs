//! What the user chose for the relay. It is kept nowhere but in the Deployment that came of it, so
//! that an upgrade keeps what was changed there by other means as well.

use serde_json::Value;

use super::netpolicy::Choice;
use super::shape::Shape;

/// The image whose `sh` and `gunzip` unpack the relay, and in which it then runs: for all machines,
/// and by its digest, since a tag is whatever its registry says that day.
pub const BASE_IMAGE: &str = "docker.io/library/busybox:1.36.1\
    @sha256:73aaf090f3d85aa34ee199857f03fa3a95c8ede2ffd4cc2cdb5b94e566b11662";
/// Relay pods: while one is replaced the other serves.
pub const REPLICAS: u16 = 2;
/// Variables of the relay with what it may reach and what not, separated by commas.
pub(super) const ALLOW: &str = "KDEV_ALLOW";
pub(super) const DENY: &str = "KDEV_DENY";
/// The relay's variable with the port where it takes tunnels by `pods/proxy`.
pub(super) const POD_TUNNEL: &str = "KDEV_POD_TUNNEL";

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the program comes from.
    pub source: Source,
    /// How many pods.
    pub replicas: u16,
    /// What alone the relay may reach, as the relay reads it; empty for everything.
    pub allow: Vec<String>,
    /// What it may not reach.
    pub deny: Vec<String>,
    /// Whether it also takes tunnels on the pod's address, by `pods/proxy`.
    pub pods_proxy: bool,
    /// Whether a NetworkPolicy lets callers in.
    pub network_policy: Choice,
    /// What policies of the cluster ask for.
    pub shape: Shape,
}

/// Where the relay's program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image that has it.
    Image(String),
    /// ConfigMaps, unpacked by an image that has a shell.
    BaseImage(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            source: Source::BaseImage(BASE_IMAGE.to_owned()),
            replicas: REPLICAS,
            allow: Vec::new(),
            deny: Vec::new(),
            pods_proxy: false,
            network_policy: Choice::default(),
            shape: Shape::default(),
        }
    }
}

impl Settings {
    /// Reads them from a Deployment, of `kdev install` or of the manifests.
    #[must_use]
    pub fn of(deployment: &Value) -> Self {
        let default = Self::default();
        let replicas = deployment["spec"]["replicas"].as_u64();
        let replicas = replicas.and_then(|replicas| u16::try_from(replicas).ok());
        let pod = &deployment["spec"]["template"]["spec"];
        let relay = &pod["containers"][0];
        let image = |container: &Value| container["image"].as_str().map(str::to_owned);
        let base = image(&pod["initContainers"][0]).map(Source::BaseImage);
        let variable = |name: &str| {
            let variables = relay["env"].as_array().into_iter().flatten();
            let mut values = variables.filter(|variable| variable["name"] == name);
            values
                .next()
                .and_then(|variable| variable["value"].as_str())
                .unwrap_or_default()
        };
        let rules = |name: &str| {
            let rules = variable(name).split([',', ' ']);
            rules
                .filter(|rule| !rule.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Self {
            source: base
                .or_else(|| image(relay).map(Source::Image))
                .unwrap_or(default.source),
            // None at all is a pause that somebody made, not a number to install.
            replicas: replicas.filter(|n| *n > 0).unwrap_or(default.replicas),
            allow: rules(ALLOW),
            deny: rules(DENY),
            pods_proxy: !["", "off"].contains(&variable(POD_TUNNEL)),
            network_policy: Choice::of(deployment),
            shape: Shape::of(deployment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_says_how_it_was_made() {
        let mut deployment = json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [{
            "image": "registry/relay:1",
            "env": [
                {"name": "KDEV_DENY", "value": "10.0.0.0/8:22,[fd00::1]:80"},
                {"name": "KDEV_POD_TUNNEL", "value": "0.0.0.0:7001"},
            ],
        }]}}}});
        let settings = Settings::of(&deployment);
        assert_eq!(
            settings.source,
            Source::Image("registry/relay:1".to_owned())
        );
        assert_eq!((settings.replicas, settings.allow.len()), (3, 0));
        assert!(settings.pods_proxy);
        assert_eq!(settings.deny, ["10.0.0.0/8:22", "[fd00::1]:80"]);
        let pod = &mut deployment["spec"]["template"]["spec"];
        pod["initContainers"] = json!([{"image": "busybox:1"}]);
        deployment["spec"]["replicas"] = json!(0);
        let settings = Settings::of(&deployment);
        assert_eq!(settings.source, Source::BaseImage("busybox:1".to_owned()));
        assert_eq!(settings.replicas, REPLICAS);
        assert_eq!(Settings::of(&json!({})), Settings::default());
    }
}
