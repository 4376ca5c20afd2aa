use super::*;

/// What becomes of the flags of a line: the container's words, and the companion's.
fn shared(line: &str) -> Result<(String, String), String> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let kind = Kind::of_name(words[0].to_str().unwrap()).unwrap();
    let args = &words[1..];
    let crate::run::container::argv::Parsed::Run {
        flags_at, image_at, ..
    } = crate::run::container::argv::parse(kind, args)
    else {
        panic!("{line} runs nothing");
    };
    let out = split(kind, args, flags_at, image_at)?;
    let kept: Vec<&str> = out.kept.iter().map(|word| word.to_str().unwrap()).collect();
    Ok((kept.join(" "), out.moved.join(" ")))
}

#[test]
fn what_is_about_the_network_goes_to_its_owner() {
    for (line, kept, moved) in [
        ("docker run IMG", "IMG", ""),
        (
            "docker run IMG -p 80:80 --network n",
            "IMG -p 80:80 --network n",
            "",
        ),
        ("docker run --rm -it IMG sh", "--rm -it IMG sh", ""),
        ("docker run -p 80:80 IMG", "IMG", "-p=80:80"),
        ("docker run -p80:80 IMG", "IMG", "-p=80:80"),
        ("docker run -p=80:80 IMG", "IMG", "-p=80:80"),
        ("docker run --publish 80:80 IMG", "IMG", "--publish=80:80"),
        (
            "docker run --publish=127.0.0.1:80:80/udp IMG",
            "IMG",
            "--publish=127.0.0.1:80:80/udp",
        ),
        ("docker run -dp 80:80 IMG", "-d IMG", "-p=80:80"),
        (
            "docker run -itp80:80 IMG -p x",
            "-i -t IMG -p x",
            "-p=80:80",
        ),
        ("docker run -Pit IMG", "-i -t IMG", "-P"),
        (
            "docker run --publish-all=false IMG",
            "IMG",
            "--publish-all=false",
        ),
        (
            "docker run -p 1:1 -e A=-p -p 2:2 IMG",
            "-e A=-p IMG",
            "-p=1:1 -p=2:2",
        ),
        ("docker run --rm -- IMG -h x", "--rm -- IMG -h x", ""),
        ("docker run -h box -- IMG", "-- IMG", "-h=box"),
        (
            "docker run --hostname box --domainname d IMG",
            "IMG",
            "--hostname=box --domainname=d",
        ),
        ("docker run --network n IMG", "IMG", "--network=n"),
        (
            "docker run --net=n --network m IMG",
            "IMG",
            "--net=n --network=m",
        ),
        (
            "docker run --network n --name me IMG",
            "--name me IMG",
            "--network=n --network-alias=me",
        ),
        (
            "docker run --name me --network a --network b IMG",
            "--name me IMG",
            "--network=a --network=name=b,alias=me --network-alias=me",
        ),
        ("docker run --name me IMG", "--name me IMG", ""),
        (
            "docker run --name me --network bridge IMG",
            "--name me IMG",
            "--network=bridge",
        ),
        (
            "docker run --name me --network name=n,alias=a IMG",
            "--name me IMG",
            "--network=name=n,alias=a,alias=me",
        ),
        (
            "docker run --network n --network-alias a IMG",
            "IMG",
            "--network=n --network-alias=a",
        ),
        (
            "docker run --network n --ip 10.0.0.9 --ip6 fd00::9 IMG",
            "IMG",
            "--network=n --ip=10.0.0.9 --ip6=fd00::9",
        ),
        (
            "docker run --mac-address 02:00:00:00:00:01 IMG",
            "IMG",
            "--mac-address=02:00:00:00:00:01",
        ),
        ("docker run --link db:db IMG", "IMG", "--link=db:db"),
        ("docker run --expose 80 IMG", "IMG", "--expose=80"),
        (
            "docker run --add-host a:1.2.3.4 IMG",
            "IMG",
            "--add-host=a:1.2.3.4",
        ),
        (
            "docker run --dns-search corp --dns-opt ndots:2 IMG",
            "IMG",
            "--dns-search=corp --dns-opt=ndots:2",
        ),
        ("docker run --dns 10.0.0.2 IMG", "IMG", ""),
        (
            "docker run --sysctl net.core.somaxconn=9 --sysctl kernel.msgmax=9 IMG",
            "--sysctl kernel.msgmax=9 IMG",
            "--sysctl=net.core.somaxconn=9",
        ),
        (
            "docker run --restart always -d IMG",
            "--restart always -d IMG",
            "--restart=always",
        ),
        (
            "docker run --platform linux/arm64 --pull always IMG",
            "--platform linux/arm64 --pull always IMG",
            "--platform=linux/arm64 --pull=always",
        ),
        (
            "docker run --init --privileged -u 1:1 -v /a:/b -w /b IMG",
            "--init --privileged -u 1:1 -v /a:/b -w /b IMG",
            "",
        ),
        (
            "docker run --env-file f --entrypoint sh IMG -c true",
            "--env-file f --entrypoint sh IMG -c true",
            "",
        ),
        (
            "docker run --cap-drop ALL --read-only --memory 1g IMG",
            "--cap-drop ALL --read-only --memory 1g IMG",
            "",
        ),
        ("docker -c ctx container run -p 1:1 IMG", "IMG", "-p=1:1"),
        (
            "podman run --network n:alias=a --name me IMG",
            "--name me IMG",
            "--network=n:alias=a,alias=me",
        ),
        (
            "podman run --network pasta --userns keep-id IMG",
            "--userns keep-id IMG",
            "--network=pasta --userns=keep-id",
        ),
        (
            "podman run --no-hosts --replace IMG",
            "--replace IMG",
            "--no-hosts",
        ),
        ("nerdctl run --net n -p 1:1 IMG", "IMG", "--net=n -p=1:1"),
    ] {
        let expected = (kept.to_owned(), moved.to_owned());
        assert_eq!(shared(line), Ok(expected), "{line}");
    }
}

#[test]
fn a_network_that_is_not_its_own_stays_as_it_is() {
    for (line, why) in [
        ("docker run --network host IMG", "--network host"),
        ("docker run --net=none IMG", "--network none"),
        (
            "docker run --network container:db IMG",
            "--network container:db",
        ),
        ("docker run --uts host IMG", "--uts host"),
        ("podman run --network ns:/run/netns/x IMG", "--network ns"),
        ("podman run --pod p IMG", "--pod p"),
        ("nerdctl run --net host IMG", "--network host"),
    ] {
        let refused = shared(line).unwrap_err();
        assert!(refused.contains(why), "{line}: {refused}");
    }
}

#[test]
fn nameservers_of_the_users_are_asked_by_kdev() {
    let words = [
        "run",
        "--dns",
        "10.0.0.2",
        "--dns=10.0.0.3",
        "--dns-search=corp",
        "IMG",
    ];
    let out = split(Kind::Docker, &words.map(OsString::from), 1, 5).unwrap();
    assert_eq!(out.resolvers, ["10.0.0.2", "10.0.0.3"]);
    assert!(out.searches);
}
