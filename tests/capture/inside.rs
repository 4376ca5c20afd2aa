//! What the commands do: programs with sockets of their own.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{
    IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket,
};
use std::time::{Duration, Instant};

use crate::stage::CASE;

/// How long anything may take that answers at once.
const SOON: Duration = Duration::from_secs(20);

/// Not a test: what `kdev run` starts. Does nothing by itself.
#[test]
fn case() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    match case.as_str() {
        "services" => services(),
        "place" => place(),
        "failures" => failures(),
        "thousand" => thousand(),
        "held" => held(),
        "waits" => std::thread::sleep(SOON),
        "loopback" => loopback(),
        "lent" => lent(),
        "never" => never(),
        "listen" => listen(),
        "kept" => kept(),
        "leave" => leave(),
        other => panic!("no case {other}"),
    }
}

fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends `text` and reads to the end.
fn ask(to: &str, text: &str) -> String {
    let mut stream = connect(to);
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

fn ports() -> Vec<u16> {
    let ports = std::env::var("PORTS").unwrap();
    ports.split(' ').map(|port| port.parse().unwrap()).collect()
}

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = (name, 80).to_socket_addrs()?;
    Ok(found.map(|at| at.ip()).collect())
}

fn services() {
    for name in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
    ] {
        let answer = ask(&format!("{name}:80"), GET);
        assert!(answer.contains("hello from web-"), "{name}: {answer}");
    }
    // A program sees the address of the Service, and is connected to it.
    let service = resolve("web").unwrap();
    assert!(!service.iter().any(IpAddr::is_loopback), "{service:?}");
    if std::env::var("HELD").is_err() {
        assert_eq!(connect("web:80").peer_addr().unwrap().ip(), service[0]);
    }
    // Half-close: what is sent after the end was told comes back still.
    let bytes = "x".repeat(1 << 20);
    let mut echo = connect("echo:7");
    let mut sender = echo.try_clone().unwrap();
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(sent.as_bytes()).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = String::new();
    echo.read_to_string(&mut back).unwrap();
    sending.join().unwrap();
    assert!(back == bytes, "{} bytes came back", back.len());
    assert!(std::env::vars().all(|(name, _)| !name.to_uppercase().ends_with("_PROXY") || name == "KDEV_SOCKS_PROXY"));
}

fn place() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| {
        status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let ids: Vec<String> = line("Uid:")
        .split_whitespace()
        .skip(1)
        .map(str::to_owned)
        .collect();
    let uid = nix::unistd::geteuid().as_raw().to_string();
    assert!(ids.iter().all(|id| *id == uid), "{ids:?}");
    if uid != "0" {
        // No privilege over its network either.
        assert_eq!(
            line("CapEff:").split_whitespace().last(),
            Some("0000000000000000")
        );
    }
    let here = std::env::current_dir().unwrap();
    assert!(here.join("Cargo.toml").exists(), "{}", here.display());
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    assert!(
        resolv.contains("search shop.svc.cluster.local svc.cluster.local"),
        "{resolv}"
    );
}

fn failures() {
    // Nobody listens on this machine's port 1 either.
    let refused = TcpStream::connect("127.0.0.1:1").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(resolve("nosuch").is_err());
    assert!(resolve("nosuch.shop.svc.cluster.local").is_err());
    // A Service without pods: the connection stands before that is known, and is reset.
    let mut stream = connect("archive:80");
    let asked = stream
        .write_all(GET.as_bytes())
        .and_then(|()| stream.read(&mut [0; 1]));
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// What differs where connects wait: a socket stays what it is, and a dial that fails is told as far as
/// the program waits for it.
fn held() {
    use socket2::{Domain, Socket, Type};
    let at = |name: &str| (name, 80).to_socket_addrs().unwrap().next().unwrap();
    let refused = TcpStream::connect(at("archive")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::HostUnreachable);
    let refused = TcpStream::connect((at("web").ip(), 81)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    for domain in [Domain::IPV4, Domain::IPV6] {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.set_keepalive(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = match (domain, at("web").ip()) {
            (Domain::IPV6, IpAddr::V4(v4)) => SocketAddr::from((v4.to_ipv6_mapped(), 80)),
            _ => at("web"),
        };
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::EINPROGRESS)),
        }
        // Asked again, it tells whether it is through.
        let until = Instant::now() + SOON;
        loop {
            match socket
                .connect(&to.into())
                .map_err(|error| error.raw_os_error())
            {
                Ok(()) | Err(Some(nix::libc::EISCONN)) => break,
                Err(Some(nix::libc::EALREADY)) => assert!(Instant::now() < until),
                Err(error) => panic!("{error:?}"),
            }
        }
        socket.set_nonblocking(false).unwrap();
        assert!(socket.keepalive().unwrap());
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(GET.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("hello from web-"), "{answer}");
    }
    // Who does not wait learns of it later.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let used = socket.connect_timeout(&at("archive").into(), SOON);
    let used = used.and_then(|()| {
        let mut stream = TcpStream::from(socket);
        stream.write_all(GET.as_bytes())?;
        stream.read(&mut [0; 1])
    });
    assert_eq!(used.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // This machine's own, with a descriptor that no socket has, and without an address.
    let port = ports()[0];
    assert_eq!(ask(&format!("127.0.0.1:{port}"), "hello"), "hello");
    let file = std::fs::File::open("/dev/null").unwrap();
    let address = socket2::SockAddr::from(at("web"));
    let not = socket2::SockRef::from(&file).connect(&address).unwrap_err();
    assert_eq!(not.raw_os_error(), Some(nix::libc::ENOTSOCK));
    // A child of a child.
    let script = "exec 3<>/dev/tcp/$0/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let ip = at("web").ip().to_string();
    let mut nested = std::process::Command::new("sh");
    let nested = nested.args(["-c", "bash -c \"$0\" \"$1\" & wait", script, &ip]);
    let nested = nested.output().unwrap();
    let said = String::from_utf8_lossy(&nested.stdout);
    assert!(said.contains("hello from web-"), "{nested:?}");
}

fn thousand() {
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| connect("echo:7")).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "{number:08}").unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; 8];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, *format!("{number:08}").as_bytes());
    }
}

fn loopback() {
    let [tcp, udp] = ports()[..] else { panic!() };
    for host in ["127.0.0.1", "localhost", "host.kdev.internal"] {
        assert_eq!(ask(&format!("{host}:{tcp}"), "hello"), "hello", "{host}");
    }
    echo(udp);
    // What the command itself listens on comes first.
    let Ok(own) = TcpListener::bind(("127.0.0.1", tcp)) else {
        panic!("the port is this machine's alone");
    };
    let mut stream = connect(&format!("127.0.0.1:{tcp}"));
    let (mut accepted, _) = own.accept().unwrap();
    accepted.write_all(b"own").unwrap();
    drop(accepted);
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "own");
}

fn echo(port: u16) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let mut room = [0; 16];
    // Not connected, so that the answer must come from where the question went. More than one: what
    // answers must not stand in the way of the next.
    for number in 0..5 {
        socket.send_to(&[number], to).unwrap();
        let (length, from) = socket.recv_from(&mut room).unwrap();
        assert_eq!((&room[..length], from), (&[number][..], to));
    }
    let connected = UdpSocket::bind("0.0.0.0:0").unwrap();
    connected.set_read_timeout(Some(SOON)).unwrap();
    connected.connect(to).unwrap();
    connected.send(b"hello").unwrap();
    assert_eq!(connected.recv(&mut room).unwrap(), 5);
}

fn lent() {
    assert!(ask("web:80", GET).contains("hello from web-"));
    assert!(ask("web.shop.svc.cluster.local:80", GET).contains("hello from web-"));
    echo(ports()[0]);
}

fn never() {
    assert!(
        resolve("web").is_err(),
        "the name is not the cluster's any more"
    );
    assert!(ask("echo:7", "hello") == "hello", "others are");
}

/// Listens, says where, and answers everybody until a `q` comes.
fn listen() {
    let at = std::env::var("PORTS").unwrap();
    let listener = TcpListener::bind(&at).unwrap();
    let own = listener.local_addr().unwrap();
    println!("listening {}", own.port());
    // It reaches itself, once that is published; before, the address is this machine's alone.
    if !own.ip().is_loopback() && !own.ip().is_unspecified() {
        std::thread::spawn(move || {
            let until = Instant::now() + SOON;
            while Instant::now() < until {
                let mut back = [0];
                let asked = TcpStream::connect(own).and_then(|mut stream| {
                    stream.write_all(b"a")?;
                    stream.read_exact(&mut back)
                });
                if asked.is_ok() {
                    return println!("reached itself");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        match first {
            [b'p'] => write!(stream, "{}", stream.peer_addr().unwrap().ip()).unwrap(),
            first => stream.write_all(&first).unwrap(),
        }
        if first == *b"q" {
            break;
        }
    }
    drop(listener);
    println!("closed");
    // Until the test has looked.
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
}

/// Says that it is there, waits until its name server was taken away, and finds names again.
fn kept() {
    use std::os::unix::fs::MetadataExt as _;
    let file = || {
        std::fs::metadata("/etc/resolv.conf")
            .map(|file| file.dev())
            .ok()
    };
    let before = file();
    println!("listening 0");
    let until = Instant::now() + SOON;
    // One that is put there again is another one.
    while file() == before || resolve("web").is_err() {
        assert!(Instant::now() < until, "names are gone");
        std::thread::sleep(Duration::from_millis(20));
    }
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    assert!(resolv.contains("search shop.svc.cluster.local"), "{resolv}");
}

/// Leaves a process behind that outlives it.
#[allow(clippy::zombie_processes)]
fn leave() {
    let child = std::process::Command::new("sleep")
        .arg("300")
        .spawn()
        .unwrap();
    println!("left {}", child.id());
    let until = Instant::now() + Duration::from_secs(300);
    while std::env::var_os("STAY").is_some() && Instant::now() < until {
        std::thread::sleep(Duration::from_secs(1));
    }
}
