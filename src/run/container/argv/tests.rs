use super::*;

fn parsed(line: &str) -> Parsed {
    let mut words = line.split(' ').map(OsString::from);
    let kind = Kind::of_name(words.next().unwrap().to_str().unwrap()).unwrap();
    parse(kind, &words.collect::<Vec<_>>())
}

/// The image that a `run` starts, or what else the line is.
fn image(line: &str) -> String {
    match parsed(line) {
        Parsed::Run { image_at, .. } => line.split(' ').nth(image_at + 1).unwrap().to_owned(),
        other => format!("{other:?}"),
    }
}

fn flags(line: &str) -> RunFlags {
    match parsed(line) {
        Parsed::Run { flags, .. } => flags,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_image_is_found_behind_every_kind_of_flag() {
    for line in [
        "docker run IMG",
        "docker run IMG run IMG2 --rm",
        "docker container run IMG",
        "docker run --rm IMG -d --network none",
        "docker run --rm=true IMG",
        "docker run -it IMG sh -c x",
        "docker run -itd IMG",
        "docker run -i -t IMG",
        "docker run -e K=V IMG",
        "docker run -eK=V IMG",
        "docker run -e=K=V IMG",
        "docker run -ite K=V IMG",
        "docker run -iteK=V IMG",
        "docker run --env K=V --env=K2=V2 IMG",
        "docker run --env-file f --env-file=g IMG",
        "docker run -p 80:80 IMG",
        "docker run -p80:80 IMG",
        "docker run -dp 80:80 IMG",
        "docker run -dp80:80 IMG",
        "docker run -P IMG",
        "docker run -h host IMG",
        "docker run -v /a:/b:ro -w /b IMG",
        "docker run -u 1000:1000 -m 1g -c 512 IMG",
        "docker run -l a=b --label c=d --label-file x IMG",
        "docker run --name n --hostname=h IMG",
        "docker run --mount type=bind,src=/a,dst=/b IMG",
        "docker run --gpus all IMG",
        "docker run --init --privileged --read-only IMG",
        "docker run --sig-proxy=false IMG",
        "docker run --pull always -q IMG",
        "docker run --platform linux/amd64 IMG",
        "docker run --health-cmd true --no-healthcheck IMG",
        "docker run --entrypoint sh IMG -c true",
        "docker run --entrypoint= IMG",
        "docker run -- IMG --rm",
        "docker run --rm -- IMG",
        "docker run -a stdout -a stderr IMG",
        "docker run --use-api-socket IMG",
        "docker run --some-new-flag value IMG",
        "docker --context c run IMG",
        "docker -c c run IMG",
        "docker -H unix:///x run IMG",
        "docker --host=tcp://1.2.3.4:1 run IMG",
        "docker -Hunix:///x -D run IMG",
        "docker --config d -l debug --tls --tlscacert f run IMG",
        "docker --debug container run -d IMG",
        "podman run IMG",
        "podman --remote run IMG",
        "podman --url unix:///x --log-level=debug run IMG",
        "podman run --replace --rmi --name n IMG",
        "podman run --pod p --http-proxy=false IMG",
        "podman run --tls-verify=false --userns keep-id IMG",
        "podman run --rootfs IMG",
        "nerdctl run IMG",
        "nerdctl -n k8s.io run -d IMG",
        "nerdctl --namespace=k8s.io --insecure-registry run IMG",
        "nerdctl container run --insecure-registry IMG",
    ] {
        assert_eq!(image(line), "IMG", "{line}");
    }
}

#[test]
fn what_is_no_run() {
    for line in [
        "docker",
        "docker ps",
        "docker run",
        "docker run --rm",
        "docker run --help",
        "docker run --rm --help IMG",
        "docker --help run IMG",
        "docker --version",
        "docker -v run IMG",
        "docker build -t run .",
        "docker container ls",
        "docker exec c run IMG",
        "docker run -e",
        "podman pod create",
        "podman kube play f",
        "nerdctl version",
    ] {
        assert_eq!(parsed(line), Parsed::Other, "{line}");
    }
    for line in [
        "docker create IMG",
        "docker container create IMG",
        "podman create --name n IMG",
        "nerdctl -n x create IMG",
    ] {
        assert_eq!(parsed(line), Parsed::Create, "{line}");
    }
    for line in [
        "docker compose up",
        "podman compose up",
        "docker --context c compose run x",
    ] {
        assert!(matches!(parsed(line), Parsed::Compose { .. }), "{line}");
    }
}

#[test]
fn detach_in_every_spelling() {
    for (line, detach) in [
        ("docker run IMG -d", false),
        ("docker run -d IMG", true),
        ("docker run --detach IMG", true),
        ("docker run --detach=true IMG", true),
        ("docker run --detach=1 IMG", true),
        ("docker run --detach=false IMG", false),
        ("docker run -d=false IMG", false),
        ("docker run -d --detach=false IMG", false),
        ("docker run -itd IMG", true),
        ("docker run -dit IMG", true),
        ("docker run -e -d IMG", false),
        ("docker run --name -d IMG", false),
        ("docker run -eKd IMG", false),
        ("docker run --detach-keys ctrl-x IMG", false),
        ("docker run -- -d IMG", false),
    ] {
        assert_eq!(flags(line).detach, detach, "{line}");
    }
}

#[test]
fn what_the_flags_say() {
    let f = flags(
        "docker run --network a --net=name=b,alias=x --name n -h host --network-alias al \
         --add-host x:1.2.3.4 --add-host=y:host-gateway --cidfile /c IMG",
    );
    assert_eq!(f.networks, ["a", "name=b,alias=x"]);
    assert_eq!(f.name.as_deref(), Some("n"));
    assert_eq!(f.hostname.as_deref(), Some("host"));
    assert_eq!(f.network_aliases, ["al"]);
    assert_eq!(f.add_hosts, ["x:1.2.3.4", "y:host-gateway"]);
    assert_eq!(f.cidfile.as_deref(), Some("/c"));
}

#[test]
fn flags_of_run_begin_behind_run() {
    for (line, at) in [
        ("docker run IMG", 1),
        ("docker container run --rm IMG", 2),
        ("docker --context c run IMG", 3),
    ] {
        assert!(
            matches!(parsed(line), Parsed::Run { flags_at, .. } if flags_at == at),
            "{line}"
        );
    }
}

#[test]
fn a_value_that_is_no_text_is_passed_over() {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt as _;
        let args = [
            OsString::from("run"),
            "-v".into(),
            OsString::from_vec(b"/\xff:/x".to_vec()),
            "IMG".into(),
        ];
        assert!(matches!(
            parse(Kind::Docker, &args),
            Parsed::Run { image_at: 3, .. }
        ));
    }
}
