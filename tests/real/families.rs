//! Endpoints of one family of addresses, as a pod would dial them.

use std::process::Command;

use crate::installed::Relay;
use crate::lab;
use crate::program::{Done, finish};

/// A pod that listens on its IPv6 address alone, and Services that mean it.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: six, labels: {app: six}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: kdev-lab/busybox:1
    imagePullPolicy: Never
    securityContext:
      runAsUser: 1000
      runAsNonRoot: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
    env:
    - {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    command: [busybox, sh, -c, 'exec busybox httpd -f -p "[${IPS##*,}]:8080" -h /etc']
    ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: only6}
spec:
  clusterIP: None
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv6]
  selector: {app: six}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: first6}
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv6, IPv4]
  selector: {app: six}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: only4}
spec:
  clusterIP: None
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv4]
  selector: {app: six}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

/// The status that curl gets from `url`, or 000.
fn status(mut kdev: Command, url: &str) -> Done {
    let curl = [
        "run",
        "--",
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "--max-time",
        "20",
        "-w",
    ];
    finish(kdev.args(curl).args(["%{http_code}", url]), b"")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn endpoints_are_dialled_at_the_addresses_that_their_service_has() {
    if lab::older_than(31, "this cluster has IPv4 alone") {
        return;
    }
    let relay = Relay::install("families");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), OBJECTS).unwrap();
    let path = file.path().to_str().unwrap();
    relay.site.kubectl(&["apply", "-f", path]).unwrap();
    relay.site.wait("the pod", |site| {
        let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
        site.field("pod/six", ready) == "True"
    });
    let namespace = &relay.site.0;
    let six = relay.site.field("pod/six", ".status.podIPs[1].ip");
    let dashed = six.replace(':', "-");
    // The pod has no index: what answers says that there is none.
    for host in [
        "only6:8080".to_owned(),
        format!("only6.{namespace}.svc.cluster.local:8080"),
        "first6:8080".to_owned(),
        // A headless Service's own port leads to the pods' one here, too.
        "only6:80".to_owned(),
        format!("{dashed}.only6:8080"),
        format!("{dashed}.{namespace}.pod:8080"),
        format!("[{six}]:8080"),
    ] {
        let done = status(relay.kdev(), &format!("http://{host}/"));
        assert_eq!(done.out, "404", "{host}: {}", done.err);
    }
    // A program that resolves the name itself, and dials what it gets.
    let mut caught = relay.kdev();
    caught.env("KDEV_CAPTURE", "on");
    let done = status(caught, "http://only6:8080/");
    assert_eq!(done.out, "404", "{}", done.err);
    // Nobody listens on the address that this Service has.
    let done = status(relay.kdev(), "http://only4:8080/");
    assert_ne!(done.out, "404", "{}", done.err);
}
