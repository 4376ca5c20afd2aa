//! The program under test, started as a user starts it.

use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::app::Way;
pub(crate) use crate::done::Done;
use crate::lab;

/// How long a command that ends by itself may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long `connect` and `forward` may take until they are ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long what a program that ended has said may take to be read. A child that it left may hold its pipes.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// How long they may take to end: the grace for open streams is 2 s.
const END_LIMIT: Duration = Duration::from_secs(6);

/// The program.
pub(crate) fn kdev_binary() -> std::ffi::OsString {
    std::env::var_os("KDEV_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kdev").into())
}

/// `kdev` with the credentials of `account`.
pub(crate) fn kdev(account: &str) -> Command {
    kdev_with(&lab::kubeconfig(account))
}

/// `kdev` with a kubeconfig.
pub(crate) fn kdev_with(kubeconfig: &Path) -> Command {
    let mut command = Command::new(kdev_binary());
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "RUST_LOG",
    ] {
        command.env_remove(name);
        command.env_remove(name.to_ascii_lowercase());
    }
    // To look into a failure: what kdev logs shows up where a scenario prints what it said.
    if let Some(filter) = std::env::var_os("KDEV_LAB_LOG") {
        command.env("RUST_LOG", filter);
    }
    // Nothing learned by an earlier run, which may have been another account's.
    command.env("XDG_CACHE_HOME", "/dev/null/cache");
    command.env_remove("KUBECONFIG");
    // What is about proxies is about those. What is caught stands in `capture`.
    command.env("KDEV_CAPTURE", "off");
    command.arg("--kubeconfig").arg(kubeconfig);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `kdev run -- ARGV`.
pub(crate) fn run(account: &str, argv: &[&str]) -> Done {
    finish(kdev(account).arg("run").arg("--").args(argv), b"")
}

/// Runs a command to its end, with `input` on its standard input.
pub(crate) fn finish(command: &mut Command, input: &'static [u8]) -> Done {
    finish_within(COMMAND_LIMIT, command, input)
}

/// The same for what takes longer.
pub(crate) fn finish_within(limit: Duration, command: &mut Command, input: &'static [u8]) -> Done {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // From threads: a pipe that nobody reads would hold the program up.
    std::thread::spawn(move || stdin.write_all(input));
    let (out, err) = (
        Pipe::read(child.stdout.take()),
        Pipe::read(child.stderr.take()),
    );
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end: {}", err.so_far());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    out.wait();
    err.wait();
    let (out, err) = (out.so_far(), err.so_far());
    assert!(!err.contains("panicked"), "{err}");
    Done {
        code: status.code().unwrap_or(-1),
        out,
        err,
    }
}

/// What comes out of a pipe. It is read in the background, so that what was read is there whatever happens.
struct Pipe {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    fn read(pipe: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let (collected, mut pipe) = (text.clone(), pipe.unwrap());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let piece = String::from_utf8_lossy(&buffer[..n]);
                collected.lock().unwrap().push_str(&piece);
            }
        });
        Self { text, reader }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until all of it is read, once its program has ended.
    fn wait(&self) {
        let until = Instant::now() + READ_LIMIT;
        while !self.reader.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A `kdev connect` or `kdev forward` that is ready; killed when dropped.
pub(crate) struct Running {
    child: Child,
    ready: Value,
    out: Pipe,
    err: Pipe,
}

impl Running {
    pub(crate) fn connect(account: &str) -> Self {
        Self::start(kdev(account).args(["connect", "--json"]))
    }

    /// Free local ports that lead to `targets`, in their order.
    pub(crate) fn forward(account: &str, targets: &[&str]) -> Self {
        let mut command = kdev(account);
        command.args(["forward", "--json"]);
        command.args(targets.iter().map(|target| format!("{target}=0")));
        Self::start(&mut command)
    }

    /// Starts what prints a line of JSON once it is ready.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut running = Self::spawn(command);
        let begun = Instant::now();
        running.ready = loop {
            if let Some(first) = running.printed().into_iter().next() {
                break first;
            }
            let ended = running.ended();
            if ended.is_some() || begun.elapsed() > READY_LIMIT {
                panic!("{command:?} is not ready: {ended:?}: {}", running.said());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        running
    }

    /// Starts what prints lines of JSON, and waits for nothing.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            out: Pipe::read(child.stdout.take()),
            err: Pipe::read(child.stderr.take()),
            child,
            ready: Value::Null,
        }
    }

    /// What it printed so far, but for a line that is not whole yet.
    pub(crate) fn printed(&self) -> Vec<Value> {
        let out = self.out.text.lock().unwrap();
        let whole = out.rfind('\n').map_or("", |end| &out[..end]);
        let lines = whole.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    /// All that it printed so far, for people.
    pub(crate) fn shown(&self) -> String {
        self.out.so_far()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where `connect` listens.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.ready["proxy"].as_str().unwrap().parse().unwrap()
    }

    /// Where `connect` answers questions about names.
    pub(crate) fn dns(&self) -> SocketAddr {
        self.ready["dns"].as_str().unwrap().parse().unwrap()
    }

    /// Where `forward` listens for its `i`th target.
    pub(crate) fn port(&self, i: usize) -> SocketAddr {
        let local = &self.ready["ports"][i]["local"];
        local.as_str().unwrap().parse().unwrap()
    }

    /// The ways through the port of `connect`.
    pub(crate) fn ways(&self) -> [Way; 3] {
        let proxy = self.proxy();
        [
            Way::Socks5(proxy),
            Way::Connect(proxy),
            Way::Absolute(proxy),
        ]
    }

    /// What it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        self.err.so_far()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// What it tells `kdev status`.
    pub(crate) fn report(&self) -> Value {
        let all = Command::new(kdev_binary())
            .args(["status", "--json"])
            .output();
        let all: Vec<Value> = serde_json::from_slice(&all.unwrap().stdout).unwrap();
        let mut all = all.into_iter();
        all.find(|report| report["pid"] == self.pid())
            .unwrap_or_else(|| panic!("no session {}: {}", self.pid(), self.said()))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.split_whitespace().next()).unwrap();
        kib.parse::<u64>().unwrap() << 10
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.try_wait().unwrap()?;
        self.out.wait();
        self.err.wait();
        Some(status.code())
    }

    /// Ends it as Ctrl-C does, and looks whether it did so in order. Gives what it had said.
    pub(crate) fn stop(self) -> String {
        self.interrupt(0, END_LIMIT)
    }

    /// The same for what ends with `code`, and may take until `limit`.
    pub(crate) fn interrupt(mut self, code: i32, limit: Duration) -> String {
        self.signal(Signal::SIGINT);
        let begun = Instant::now();
        let ended = loop {
            if let Some(ended) = self.ended() {
                break ended;
            }
            assert!(begun.elapsed() < limit, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = self.said();
        assert_eq!(ended, Some(code), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("kdev said:\n{}", self.said());
        }
    }
}
