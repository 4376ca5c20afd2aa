//! The manifests, the chart, the image and the roles of `cluster/`, as an administrator uses them.

use std::collections::BTreeSet;
use std::process::Command;

use kdev::rule::control::{Ask, Tell};
use kdev::rule::{AppProtocol, Claim, Conditions};
use kdev::tunnel::control::{Reader, write};
use kdev::tunnel::{Budget, HandshakeError, Identity, Protocol, Role, Secret, connect, serve};
use serde_json::{Value, json};

use crate::lab::{self, Only};
use crate::peer::{self, Peer};
use crate::site::{self, IMAGE, SECRETS, Site};

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster");

/// The manifests as a folder for this lab: with its image, and with the PodDisruptionBudget that its
/// server knows.
fn kustomization() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let policy = if lab::kube() >= 21 {
        "policy/v1"
    } else {
        "policy/v1beta1"
    };
    for file in std::fs::read_dir(format!("{CLUSTER}/manifests")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace(
                "apiVersion: policy/v1\n",
                &format!("apiVersion: {policy}\n"),
            )
            .replace("registry.example/kdev-relay", IMAGE[0])
            .replace("newTag: 0.1.0", &format!("newTag: {:?}", IMAGE[1]));
        std::fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
    }
    folder
}

/// What of a Deployment or PodDisruptionBudget must be the same however it came: all but who made it.
fn essence(site: &Site, object: &str) -> Value {
    let mut spec = site.object(object)["spec"].take();
    if let Some(labels) = spec["template"]["metadata"]["labels"].as_object_mut() {
        labels.remove("app.kubernetes.io/managed-by");
    }
    spec
}

/// All that is in a namespace, but what happened there and pods that are going.
fn everything(site: &Site) -> BTreeSet<String> {
    let kinds =
        lab::kubectl(&["api-resources", "--namespaced", "--verbs=list", "-o=name"]).unwrap();
    let kinds = kinds
        .split_whitespace()
        .filter(|kind| !kind.starts_with("events"));
    let kinds = kinds.collect::<Vec<_>>().join(",");
    let list = site.kubectl(&["get", &kinds, "-o", "name"]).unwrap();
    list.lines().map(str::to_owned).collect()
}

/// By the administrator.
async fn works(site: &Site) {
    peer::works(site, lab::kubeconfig("admin"), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn manifests_and_the_chart_install_the_same_relay() {
    let (plain, chart) = (Site::create("plain"), Site::create("chart"));
    plain.make_secrets();
    let folder = kustomization();
    let folder = folder.path().to_str().unwrap();
    let apply = [
        "apply",
        "--server-side",
        "--field-manager=kdev",
        "-k",
        folder,
    ];
    plain.kubectl(&apply).unwrap();
    let before = everything(&chart);
    chart.install_chart(&json!({}));
    for object in ["deployment/kdev-relay", "poddisruptionbudget/kdev-relay"] {
        assert_eq!(essence(&plain, object), essence(&chart, object), "{object}");
    }
    works(&plain).await;
    works(&chart).await;

    // An upgrade keeps the keys: a kdev that runs keeps its tunnels' secret.
    let keys = SECRETS.map(|name| chart.key(name));
    assert_ne!(keys[0], keys[1]);
    let values = json!({"deny": ["10.9.9.9/32"], "podLabels": {"app": "kdev-relay"}});
    chart.helm("upgrade", &values).unwrap();
    assert_eq!(SECRETS.map(|name| chart.key(name)), keys);
    let template = &chart.object("deployment/kdev-relay")["spec"]["template"];
    let denied = json!([{"name": "KDEV_DENY", "value": "10.9.9.9/32"}]);
    assert_eq!(template["spec"]["containers"][0]["env"], denied);
    assert_eq!(template["metadata"]["labels"]["app"], "kdev-relay");
    works(&chart).await;

    // Nothing of it stays.
    lab::script("helm", &["uninstall", &chart.0, "relay"]).unwrap();
    chart.wait("its objects to go", |site| everything(site) == before);
}

/// The ClusterRoles of `cluster/rbac`, which one scenario has at a time; deleted when this is dropped.
pub(crate) struct Roles {
    _only: Only,
}

impl Roles {
    pub(crate) fn apply() -> Self {
        let only = Only::one("roles");
        lab::kubectl(&["apply", "-f", &format!("{CLUSTER}/rbac")]).unwrap();
        Self { _only: only }
    }

    pub(crate) fn bind(site: &Site, role: &str, account: &str) {
        let role_flag = format!("--clusterrole={role}");
        let account = format!("--serviceaccount={}:{account}", site.0);
        let bind = ["create", "rolebinding", role, &role_flag, &account];
        site.kubectl(&bind).unwrap();
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let _ = lab::kubectl(&["delete", "-f", &format!("{CLUSTER}/rbac")]);
    }
}

/// Registers a listener as a kdev would, and gives what the relay says of it.
async fn attach(peer: &Peer, pod: &str, key: &[u8]) -> Result<Tell, HandshakeError> {
    let identity = Identity::random();
    let session = identity.session();
    let secret = Secret::new(key).unwrap();
    let (io, _) = connect(peer.dial(pod).await, Role::Reverse, &identity, &secret).await?;
    let mut listener = serve(io, Budget::new(1 << 20).share().unwrap()).await?;
    let incoming = listener.next().await.unwrap();
    assert_eq!(incoming.protocol, Protocol::Control);
    let (from, mut to) = tokio::io::split(incoming.accept()?);
    let asked = async {
        let claim = Claim {
            id: session.to_string(),
            owner: "test".to_owned(),
            session,
            conditions: Conditions::everything(),
            since: 1,
            mirror: false,
            fallback: false,
            strict: false,
            protocol: AppProtocol::Tcp,
        };
        let ask = Ask::Attach {
            port: 20_000,
            claim: Box::new(claim),
            over: Some("the test's next door".to_owned()),
            log: false,
        };
        write(&mut to, &ask).await.unwrap();
        Reader::new(from).next::<Tell>().await.unwrap().unwrap()
    };
    // Bytes move while somebody waits for streams.
    tokio::select! {
        told = asked => Ok(told),
        _ = listener.next() => panic!("the relay opened another stream or left"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn one_secret_admits_forward_tunnels_alone() {
    let site = Site::create("roles");
    site.install_chart(&json!({"replicas": 1}));
    let pod = site.await_relays(1).remove(0);
    let _roles = Roles::apply();
    let user = site.account("user");
    assert!(!user.may(&["get", "secret/kdev-relay"]));
    Roles::bind(&site, "kdev-use", &user.0);
    let may = |args: &[&str]| user.may(&[args, &["-n", &site.0]].concat());
    for allowed in [
        &["get", "secret/kdev-relay"][..],
        &["watch", "services"],
        &["list", "endpointslices.discovery.k8s.io"],
        &["create", "pods", "--subresource=portforward"],
    ] {
        assert!(may(allowed), "{allowed:?}");
    }
    let more = [
        &["get", "secret/kdev-relay-intercept"][..],
        &["patch", "service/web"],
        &["create", "services"],
        &["get", "deployment/kdev-relay"],
        &["patch", "configmap/kdev-relay-ports"],
    ];
    for refused in more {
        assert!(!may(refused), "{refused:?}");
    }
    let never = [
        &["list", "secrets"][..],
        &["get", "secret/other"],
        &["create", "pods"],
        &["create", "pods", "--subresource=exec"],
        &["get", "configmaps"],
        &["get", "configmap/other"],
        &["patch", "deployment/web"],
        // Its pods can mount each Secret, so whoever changes it reads them all.
        &["patch", "deployment/kdev-relay"],
        &["update", "deployment/kdev-relay"],
        &["patch", "pods"],
    ];
    let peer = Peer::connect(user.kubeconfig(), &site.0).await;
    let key = peer.key(SECRETS[0]).await.unwrap();
    assert_eq!(peer.key(SECRETS[1]).await, Err(Some(403)));
    let opener = peer::tunnel(peer.dial(&pod).await, &key).await.unwrap();
    peer::get(&opener, "web.shop:80").await;
    // With the key that it has it is nobody to the other role.
    let refused = attach(&peer, &pod, &key).await.unwrap_err();
    assert!(matches!(refused, HandshakeError::Impostor), "{refused:?}");
    peer.close().await;
    Roles::bind(&site, "kdev-intercept", &user.0);
    for allowed in more {
        assert!(may(allowed), "{allowed:?}");
    }
    for refused in never {
        assert!(!may(refused), "{refused:?}");
    }
    let peer = Peer::connect(user.kubeconfig(), &site.0).await;
    let key = peer.key(SECRETS[1]).await.unwrap();
    let told = attach(&peer, &pod, &key).await.unwrap();
    assert!(
        matches!(told, Tell::Attached { port: 20_000, .. }),
        "{told:?}"
    );
    peer.close().await;
}

/// An image, removed when this is dropped.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = lab::docker(&["rmi", "-f", &self.0]);
    }
}

#[test]
#[ignore = "needs the lab"]
fn the_containerfile_makes_an_image_of_one_program() {
    let relay = std::env::var_os("KDEV_RELAY_BINARY").expect("cluster/lab/test sets it");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(relay, folder.path().join("kdev-relay-amd64")).unwrap();
    let image = Image(lab::unique("image"));
    let (file, arch) = (format!("{CLUSTER}/Containerfile"), "TARGETARCH=amd64");
    let context = folder.path().to_str().unwrap();
    let build = [
        "build",
        "-q",
        "-f",
        &file,
        "--build-arg",
        arch,
        "-t",
        &image.0,
        context,
    ];
    lab::docker(&build).unwrap();
    let flags = [
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
    ];
    let said = lab::docker(&[&flags[..], &[&image.0, "--version"]].concat()).unwrap();
    assert_eq!(
        said.trim(),
        concat!("kdev-relay ", env!("CARGO_PKG_VERSION"))
    );
    let user = [
        "inspect",
        "--format",
        "{{.Config.User}} {{len .RootFS.Layers}}",
        &image.0,
    ];
    assert_eq!(lab::docker(&user).unwrap().trim(), "65532:65532 1");
}

#[test]
#[ignore = "needs the lab"]
fn the_chart_is_sound_and_says_what_it_needs() {
    let lint = |values: Value| lab::script("helm", &["lint", site::CHART, &values.to_string()]);
    let image = json!({"repository": "registry.example/kdev-relay"});
    lint(json!({"image": image})).unwrap();
    let unknown = lint(json!({"image": image, "replica": 3})).unwrap_err();
    assert!(unknown.contains("replica"), "{unknown}");
    let rendered = |values: Value| {
        let args = ["template", site::CHART, "shop", &values.to_string()];
        lab::script("helm", &args)
    };
    let error = rendered(json!({})).unwrap_err();
    assert!(error.contains("set image.repository"), "{error}");
    // One replica without intercepts on OpenShift.
    let values = json!({"image": image, "replicas": 1, "intercept": false, "runAsUser": null});
    let few = rendered(values).unwrap();
    for absent in [
        "PodDisruptionBudget",
        "kdev-relay-intercept\n",
        "runAsUser",
        "runAsGroup",
    ] {
        assert!(!few.contains(absent), "{absent} in {few}");
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = json!({"repository": "registry.example/kdev-relay", "digest": digest});
    let kept = rendered(json!({"image": pinned, "secrets": {"create": false}})).unwrap();
    assert!(!kept.contains("kind: Secret"), "{kept}");
    assert!(kept.contains(&format!("kdev-relay@{digest}")), "{kept}");
}

/// kubectl's kustomize renders the manifests with the image that the kustomization names.
#[test]
#[ignore = "needs the lab"]
fn the_kustomization_sets_the_image() {
    let output = Command::new("kubectl")
        .args(["kustomize", &format!("{CLUSTER}/manifests")])
        .output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let image = concat!(
        "image: registry.example/kdev-relay:",
        env!("CARGO_PKG_VERSION"),
        "\n"
    );
    assert!(text.contains(image), "{text} {:?}", output.stderr);
}
