use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn joined(args: &[OsString]) -> String {
    let text: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    text.join(" ")
}

#[test]
fn flags_before_the_subcommand_are_told_apart() {
    for (line, flags, files, subcommand, rest) in [
        ("up", "", "", "up", ""),
        ("-f a.yaml up -d", "", "a.yaml", "up", "-d"),
        ("-fa.yaml -f=b.yaml up", "", "a.yaml b.yaml", "up", ""),
        (
            "--file a.yaml --file=b.yaml up web",
            "",
            "a.yaml b.yaml",
            "up",
            "web",
        ),
        ("-p shop up", "-p shop", "", "up", ""),
        (
            "--profile a -f x --env-file e --project-name=n up -- web",
            "--profile a --env-file e --project-name=n",
            "x",
            "up",
            "-- web",
        ),
        (
            "--compatibility --progress plain ps -a",
            "--compatibility --progress plain",
            "",
            "ps",
            "-a",
        ),
        ("--dry-run up", "--dry-run", "", "", ""),
        ("--help", "--help", "", "", ""),
        ("", "", "", "", ""),
        ("-f", "", "", "", ""),
    ] {
        let found = parse(&words(line));
        assert_eq!(joined(&found.flags), flags, "{line}");
        assert_eq!(found.files.join(" ").trim(), files, "{line}");
        assert_eq!(found.subcommand, subcommand, "{line}");
        assert_eq!(joined(&found.rest), rest, "{line}");
    }
}

#[test]
fn flags_of_up_are_told_from_services() {
    for (line, flags, services, detached) in [
        ("", "", "", false),
        ("-d", "-d", "", true),
        ("web db", "", "web db", false),
        ("web -d db", "-d", "web db", true),
        ("-dV --build web", "-dV --build", "web", true),
        ("--wait -t 3 web", "--wait -t 3", "web", true),
        ("-t3 web", "-t3", "web", false),
        ("--detach=false web", "--detach=false", "web", false),
        (
            "--scale web=3 --pull always web",
            "--scale web=3",
            "web",
            false,
        ),
        ("--pull=always", "", "", false),
        (
            "--exit-code-from web --no-attach db",
            "--exit-code-from web --no-attach db",
            "",
            false,
        ),
        ("--build -- web -d", "--build", "web -d", false),
    ] {
        let found = up(&words(line)).unwrap();
        assert_eq!(joined(&found.flags), flags, "{line}");
        assert_eq!(found.services.join(" "), services, "{line}");
        assert_eq!(found.detached, detached, "{line}");
    }
    assert_eq!(up(&words("--help")), None);
    assert_eq!(up(&words("-d --dry-run")), None);
    let found = up(&words(
        "--scale web=3 --scale=db=1 --scale odd --pull never --no-start",
    ))
    .unwrap();
    let scales = [("db".to_owned(), 1), ("web".to_owned(), 3)];
    assert_eq!(found.scales, scales.into_iter().collect());
    assert_eq!(found.pull.as_deref(), Some("never"));
    assert!(found.idle && !found.keeps && !found.alone);
    let found = up(&words("--no-recreate --no-deps web")).unwrap();
    assert!(found.keeps && found.alone);
}

#[test]
fn what_run_runs_is_left_alone() {
    for (line, flags, service, command, ports) in [
        ("web", "", "web", "", ""),
        (
            "--rm -e A=b web pytest -p x --pull",
            "--rm -e A=b",
            "web",
            "pytest -p x --pull",
            "",
        ),
        (
            "-T --rm -p 80:80 --publish=81:81 web",
            "-T --rm",
            "web",
            "",
            "80:80 81:81",
        ),
        ("-Tp 80:80 web", "-T", "web", "", "80:80"),
        (
            "-p80:80 --pull never -u 0 web sh",
            "-u 0",
            "web",
            "sh",
            "80:80",
        ),
        (
            "--entrypoint sh --no-deps -- web -c x",
            "--entrypoint sh --no-deps",
            "web",
            "-c x",
            "",
        ),
    ] {
        let found = run(&words(line)).unwrap();
        let one_off = found.one_off.unwrap();
        assert_eq!(joined(&found.flags), flags, "{line}");
        assert_eq!(found.services, [service], "{line}");
        assert_eq!(joined(&one_off.command), command, "{line}");
        assert_eq!(one_off.ports.join(" "), ports, "{line}");
        assert!(!one_off.service_ports && !one_off.aliases, "{line}");
    }
    let found = run(&words("-dP --use-aliases --no-deps web")).unwrap();
    assert!(found.detached && found.alone);
    let one_off = found.one_off.unwrap();
    assert!(one_off.service_ports && one_off.aliases);
    for line in ["", "--rm", "--help web", "-e"] {
        assert_eq!(run(&words(line)), None, "{line}");
    }
}
