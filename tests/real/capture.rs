//! `kdev run` with a network of the command's own, as a user of the laptop without any privilege:
//! programs that know no proxy, and what is left when kdev is killed.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab;
use crate::program::{finish, kdev_binary};

/// `games`: every Debian has that account, and nothing runs as it.
const USER: u32 = 5;
/// How long what ends may take on a busy machine.
const GONE_LIMIT: Duration = Duration::from_secs(20);

/// A user without privilege, with a home of its own.
struct Laptop {
    folder: tempfile::TempDir,
    /// What stands before kdev in each command line.
    before: &'static [&'static str],
}

/// Makes the rest of a command line run where there are no namespaces to be had.
const NO_NAMESPACES: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 >/proc/sys/user/max_user_namespaces && \
     exec setpriv --bounding-set=-all --inh-caps=-all -- \"$0\" \"$@\"",
];

impl Laptop {
    fn of(account: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let before = &[];
        let laptop = Self { folder, before };
        let home = laptop.path("");
        chown(&home, Some(USER), Some(USER)).unwrap();
        // Where this checkout is, others may not get to.
        std::fs::copy(kdev_binary(), laptop.path("program")).unwrap();
        let kubeconfig = laptop.path("kubeconfig");
        std::fs::copy(lab::kubeconfig(account), &kubeconfig).unwrap();
        std::fs::set_permissions(&kubeconfig, PermissionsExt::from_mode(0o644)).unwrap();
        laptop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kdev ARGS` by that user, in a group of its own.
    fn kdev(&self, args: &[&str]) -> Command {
        let id = USER.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .args(self.before)
            .arg(self.path("program"))
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("KUBECONFIG", self.path("kubeconfig"))
            .env("KDEV_CAPTURE", "on")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, command: &[&str]) -> crate::program::Done {
        let args = [&["run", "-q", "-n", "shop", "--"], command].concat();
        finish(&mut self.kdev(&args), b"")
    }
}

fn is_here(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status();
    found.unwrap().success()
}

const NODE: &str = "require('net').connect(6379, 'redis', function () { this.write('PING\\r\\n') })
    .on('data', data => { console.log(String(data).trim()); process.exit() })
    .on('error', error => { console.log(error.message); process.exit(1) })";
const FETCH: &str = "fetch('http://web/').then(r => r.text()).then(console.log)";
const PYTHON: &str = "import urllib.request; print(urllib.request.urlopen('http://web/').read())";
const ASYNCIO: &str = "
import asyncio
async def main():
    reader, writer = await asyncio.open_connection('redis', 6379)
    writer.write(b'PING\\r\\n'); print((await reader.readline()).decode())
asyncio.run(main())";
const JAVA: &str = "
import java.net.*; import java.nio.*; import java.nio.channels.*;
class Nio { public static void main(String[] a) throws Exception {
  var channel = SocketChannel.open(new InetSocketAddress(\"redis\", 6379));
  channel.write(ByteBuffer.wrap(\"PING\\r\\n\".getBytes()));
  var room = ByteBuffer.allocate(64); channel.read(room);
  System.out.println(new String(room.array(), 0, room.position()));
} }";

#[test]
#[ignore = "needs the lab"]
fn programs_that_know_no_proxy_see_the_cluster() {
    see_the_cluster(&Laptop::of("dev"));
}

#[test]
#[ignore = "needs the lab"]
fn without_namespaces_programs_see_the_cluster_too() {
    let mut laptop = Laptop::of("dev");
    laptop.before = &NO_NAMESPACES;
    see_the_cluster(&laptop);
    let many = laptop.run(&["python3", "-c", MANY, "500"]);
    assert_eq!(many.out.trim(), "500", "{many:?}");
    // Each dial that a program waits for ends with its own error.
    for (port, error) in [("81", "ConnectionRefusedError"), ("80", "none")] {
        let script = format!(
            "import socket\ntry: socket.socket().connect(('web', {port})); print('none')\n\
             except OSError as error: print(type(error).__name__)"
        );
        let done = laptop.run(&["python3", "-c", &script]);
        assert_eq!(done.out.trim(), error, "{done:?}");
    }
    // A command whose kdev is killed ends.
    let args = [
        "run",
        "-q",
        "-n",
        "shop",
        "--",
        "sh",
        "-c",
        "echo up; exec sleep 300",
    ];
    let mut kdev = laptop.kdev(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 3];
    let out = kdev.stdout.as_mut().unwrap();
    std::io::Read::read_exact(out, &mut first).unwrap();
    kdev.kill().unwrap();
    kdev.wait().unwrap();
    // The command has the other end until then.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut kdev.stdout.take().unwrap(), &mut rest).unwrap();
}

fn see_the_cluster(laptop: &Laptop) {
    std::fs::write(laptop.path("Nio.java"), JAVA).unwrap();
    let psql = "postgres://shop:shop@pg.shop:5432/shop";
    let address = lab::field("svc/web", ".spec.clusterIP");
    for (argv, answer) in [
        (&["curl", "-sS", "http://web/"][..], "web-"),
        (
            &["curl", "-sS", "http://web.shop.svc.cluster.local/"],
            "web-",
        ),
        (
            &["psql", psql, "-Atc", "select count(*) from orders"],
            "1000",
        ),
        (&["redis-cli", "-h", "redis", "ping"], "PONG"),
        (&["python3", "-c", PYTHON], "web-"),
        (&["python3", "-c", ASYNCIO], "PONG"),
        (&["node", "-e", NODE], "PONG"),
        (&["node", "-e", FETCH], "web-"),
        (&["java", "Nio.java"], "PONG"),
        (&["wget", "-qO-", "http://web/"], "web-"),
        (&["busybox", "wget", "-qO-", "http://web/"], "web-"),
        (&["dig", "+short", "+search", "web"], &address),
        (
            &["dig", "+short", "+tcp", "web.shop.svc.cluster.local"],
            &address,
        ),
        (&["getent", "hosts", "web"], &address),
    ] {
        if !is_here(argv[0]) {
            println!("{} is not on this machine", argv[0]);
            continue;
        }
        let done = laptop.run(argv);
        assert!(
            done.code == 0 && done.out.contains(answer),
            "{argv:?}: {done:?}"
        );
    }
    // These talk to a web server, whose words they do not understand.
    for (argv, said) in [
        (
            &["git", "ls-remote", "http://web/repo.git"][..],
            "not found",
        ),
        (
            &["ssh", "-o", "BatchMode=yes", "-p", "80", "web"],
            "kex_exchange",
        ),
    ] {
        if is_here(argv[0]) {
            let done = laptop.run(argv);
            assert!(done.err.contains(said), "{argv:?}: {done:?}");
        }
    }
}

#[test]
#[ignore = "needs the lab"]
fn two_commands_of_two_namespaces_share_nothing() {
    let laptop = Laptop::of("admin");
    let own = |namespace: &str| {
        let script = "sleep 1; cat /etc/resolv.conf; curl -sS http://web/";
        let args = ["run", "-q", "-n", namespace, "--", "sh", "-c", script];
        let mut command = laptop.kdev(&args);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let both = ["shop", "other"].map(|namespace| (namespace, own(namespace)));
    for (namespace, child) in both {
        let output = child.wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(out.contains(&format!("search {namespace}.svc.")), "{out}");
        let pods = lab::ready(namespace, "app=web").unwrap();
        assert!(pods.iter().any(|pod| out.contains(pod)), "{out}: {pods:?}");
    }
}

/// The processes of that user.
fn processes() -> String {
    let mut ps = Command::new("ps");
    ps.args(["-o", "pid=,stat=,args=", "-u", &USER.to_string()]);
    let listed = ps.output().unwrap();
    let all = String::from_utf8_lossy(&listed.stdout).into_owned();
    // What has ended and waits for its parent to look is no process any more.
    let alive = all.lines().filter(|line| {
        !line
            .split_whitespace()
            .nth(1)
            .is_some_and(|s| s.starts_with('Z'))
    });
    alive.collect::<Vec<_>>().join("\n")
}

/// What is mounted where kdev mounts something in its namespaces. Elsewhere the lab's pods come and go.
fn mounts() -> String {
    const PLACES: [&str; 7] = [
        "/run/nscd",
        "/var/run/nscd",
        "/srv",
        "/media",
        "/mnt",
        "/opt",
        "/tmp",
    ];
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let its = all.lines().filter(|line| {
        let mut words = line.split(' ');
        let (source, at) = (words.next().unwrap(), words.next().unwrap());
        source == "kdev" || at.starts_with("/etc/") || PLACES.contains(&at)
    });
    its.collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "needs the lab"]
fn a_kill_at_any_moment_leaves_nothing() {
    let laptop = Laptop::of("dev");
    assert_eq!(processes(), "", "others run as this user");
    let before = mounts();
    // From before its namespaces are made to after the command has begun, which may be later on a busy
    // machine; so the last time is when it has seen the cluster.
    let delays = (0..19_u64).map(|round| Some(Duration::from_millis(round * round * 3)));
    for (round, delay) in delays.chain([None]).enumerate() {
        let script = "curl -sS http://web/; sleep 300 & sleep 300";
        let args = ["run", "-q", "-n", "shop", "--", "sh", "-c", script];
        let mut command = laptop.kdev(&args);
        let mut kdev = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        match delay {
            Some(delay) => std::thread::sleep(delay),
            None => {
                let mut first = [0; 4];
                let out = kdev.stdout.as_mut().unwrap();
                std::io::Read::read_exact(out, &mut first).unwrap();
                assert_eq!(&first, b"web-");
            }
        }
        kdev.kill().unwrap();
        kdev.wait().unwrap();
        let until = Instant::now() + GONE_LIMIT;
        while !processes().is_empty() {
            assert!(Instant::now() < until, "round {round}:\n{}", processes());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(mounts(), before);
}

/// So many connections that stand at once, and what each says.
const MANY: &str = "
import resource, socket, sys
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
all = [socket.create_connection(('web', 80)) for _ in range(count)]
answers = 0
for one in all:
    one.sendall(b'GET / HTTP/1.1\\r\\nHost: web\\r\\nConnection: close\\r\\n\\r\\n')
for one in all:
    one.settimeout(30)
    answers += one.makefile('rb').read().startswith(b'HTTP/1.1 200')
print(answers)";

#[test]
#[ignore = "needs the lab"]
fn many_connections_stand_at_once() {
    let laptop = Laptop::of("dev");
    let done = laptop.run(&["python3", "-c", MANY, "500"]);
    assert_eq!(done.out.trim(), "500", "{done:?}");
}
