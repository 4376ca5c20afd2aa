//! A container that asks, played by a shell script in place of the engine: the way a container is
//! started, asked and judged, with each of the programs that images have.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kdev_sim::Options;

use crate::support::{Check, Doctor, Document, cluster};

/// Answers as Docker does; `run` runs the container's command with nothing but `$TOOLS` in its
/// PATH, and with `$HOST`, where that is set, in place of the host that it should ask. Behind the
/// network `$WALL` kdev is not reached either.
const ENGINE: &str = r#"#!/bin/sh
case "$1" in
  --version) echo 'Docker version 28.2.2' ;;
  context) echo unix:///var/run/docker.sock ;;
  info) echo '{"OperatingSystem": "Debian", "Name": "box", "SecurityOptions": []}' ;;
  network)
    [ "$2" != ls ] || { printf "bridge\n$NETWORKS"; exit; }
    echo '[{"Name": "x", "Driver": "bridge", "Id": "0123456789abcdef",
      "IPAM": {"Config": [{"Subnet": "127.0.0.0/8", "Gateway": "127.0.0.1"}]}}]' ;;
  image) [ "$2" = ls ] && printf 'their/thing:1\nbusybox:1\n<none>:<none>\n' ;;
  run)
    case "$*" in 'run --rm --pull never '*) ;; *) exit 125 ;; esac
    case "$*" in *"--network $WALL "*) HOST=127.0.0.2 ;; esac
    while [ "$1" != --entrypoint ]; do shift; done
    [ "$3" = "${IMAGE:-busybox:1}" ] || exit 125
    shift 3
    [ -z "$HOST" ] || set -- "$1" "$2" "$3" "$HOST" "$5" "$6" "$HOST"
    export PATH="$TOOLS"
    exec /bin/sh "$@" ;;
  *) exit 1 ;;
esac
"#;

fn which(program: &str) -> PathBuf {
    // The system's own first: version managers put scripts in their places.
    let path = std::env::var("PATH").unwrap();
    let path = format!("/usr/bin:/bin:{path}");
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(program));
    all.find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}

/// The check of a container that has `tool`.
async fn reach(tool: Option<&str>, env: &[(&str, &str)]) -> Check {
    let mut found = look(tool, env).await;
    let at = found.checks.iter().position(|c| c.id == "container.reach");
    found.checks.swap_remove(at.unwrap())
}

/// All checks, where containers have `tool`.
async fn look(tool: Option<&str>, env: &[(&str, &str)]) -> Document {
    let cluster = cluster(Options::default()).await;
    let mut doctor = Doctor::of(&cluster, "dev");
    let tools = doctor.folder.0.join("tools");
    std::fs::create_dir(&tools).unwrap();
    if let Some(tool) = tool {
        symlink(which(tool), tools.join(tool)).unwrap();
    }
    // What is linked statically may crash at a look-up of a name.
    if tool == Some("python3") {
        doctor
            .folder
            .script("tools/curl", "#!/bin/sh\nkill -SEGV $$\n");
    }
    doctor.folder.script("docker", ENGINE);
    let folder = doctor.folder.0.clone();
    doctor = doctor
        .path(&[&folder, Path::new("/usr/bin"), Path::new("/bin")])
        .env("TOOLS", tools.to_str().unwrap());
    for (name, value) in env {
        doctor = doctor.env(name, value);
    }
    let found = doctor.json().await;
    assert!(found.ok, "containers are not needed: {found:#?}");
    let engine = found.get("container.engine");
    assert_eq!(engine.status, "ok", "{engine:?}");
    assert!(
        engine.detail.contains("containers find kdev at 127.0.0.1"),
        "{engine:?}"
    );
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_the_listener_with_what_it_has() {
    for tool in ["curl", "bash", "python3"] {
        let check = reach(Some(tool), &[]).await;
        assert_eq!(check.status, "ok", "{tool}: {check:?}");
        let expected = "a container of busybox:1 reached 127.0.0.1 after ";
        assert!(check.detail.starts_with(expected), "{tool}: {check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_is_a_warning() {
    // An address of this machine where nobody listens.
    let check = reach(Some("curl"), &[("HOST", "127.0.0.2")]).await;
    assert_eq!(check.status, "warn", "{check:?}");
    assert!(
        check.detail.contains("does not reach kdev at 127.0.0.1:"),
        "{check:?}"
    );
    assert!(check.detail.contains("curl: (7)"), "{check:?}");
    assert!(check.fix.unwrap().contains("firewall"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_networks_are_tried_as_well() {
    let env = [("NETWORKS", "dev\nshop\na\nb\nc\nd\n"), ("WALL", "shop")];
    let found = look(Some("curl"), &env).await;
    assert_eq!(found.get("container.reach").status, "ok", "{found:#?}");
    assert_eq!(found.get("container.reach.dev").status, "ok", "{found:#?}");
    let walled = found.get("container.reach.shop");
    assert_eq!(walled.status, "warn", "{walled:?}");
    let network = "on the network \"shop\" (br-0123456789ab, 127.0.0.0/8) does not reach kdev";
    assert!(walled.detail.contains(network), "{walled:?}");
    let fix = walled.fix.as_deref().unwrap();
    assert!(fix.contains("127.0.0.0/8"), "{walled:?}");
    // Not more than a machine with many has time for.
    let others = found.get("container.reach-others");
    assert!(others.detail.starts_with("c, d: "), "{others:?}");
    assert!(!found.checks.iter().any(|c| c.id == "container.reach.c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_tools_proves_nothing() {
    let check = reach(None, &[]).await;
    assert_eq!(check.status, "skipped", "{check:?}");
    assert!(
        check
            .detail
            .starts_with("no image here has a shell and curl"),
        "{check:?}"
    );
    assert!(
        check
            .fix
            .unwrap()
            .contains("kdev run -- docker run --rm curlimages/curl")
    );
    let check = reach(Some("curl"), &[("IMAGE", "their/thing:1")]).await;
    assert_eq!(check.status, "ok", "the next image is tried: {check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_run_is_a_warning() {
    let cluster = cluster(Options::default()).await;
    let doctor = Doctor::of(&cluster, "dev");
    doctor.folder.script(
        "docker",
        "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n",
    );
    let found = doctor.json().await;
    assert!(found.ok);
    let engine = found.get("container.engine");
    assert_eq!(engine.status, "warn");
    assert!(
        engine
            .detail
            .contains("Cannot connect to the Docker daemon"),
        "{engine:?}"
    );
    assert_eq!(found.get("container.reach").status, "skipped");
}
