//! The laptop's resolvers, as `resolv.conf` has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use resolv_conf::ScopedIp;

/// The port of DNS.
const PORT: u16 = 53;
/// Most resolvers that are used. The C library stops at 3.
const MAX_SERVERS: usize = 8;
/// How often the file is looked at for changes, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest file that is read; real ones have some hundred bytes.
const MAX_FILE: u64 = 64 << 10;

/// The resolvers and how to use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    /// In the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// How long one may take.
    pub timeout: Duration,
    /// How often the whole list is gone through.
    pub attempts: u32,
    /// Whether each question begins with another one.
    pub rotate: bool,
}

impl Resolvers {
    /// Reads the text of a `resolv.conf`. What cannot be understood is skipped, as the C library
    /// does; without a resolver, this machine is meant.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let (config, errors) = resolv_conf::Config::parse_with_errors(text);
        for error in &errors {
            tracing::debug!(%error, "a line of resolv.conf is skipped");
        }
        let mut servers: Vec<SocketAddr> = config.nameservers.iter().map(server).collect();
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        Self {
            servers,
            // The C library's own limits.
            timeout: Duration::from_secs(u64::from(config.timeout.clamp(1, 30))),
            attempts: config.attempts.clamp(1, 5),
            rotate: config.rotate,
        }
    }
}

fn server(ip: &ScopedIp) -> SocketAddr {
    match ip {
        ScopedIp::V4(ip) => (*ip, PORT).into(),
        ScopedIp::V6(ip, scope) => {
            let index = scope.as_deref().map_or(0, |scope| {
                let by_name = || nix::net::if_::if_nametoindex(scope).unwrap_or(0);
                scope.parse().unwrap_or_else(|_| by_name())
            });
            SocketAddrV6::new(*ip, PORT, 0, index).into()
        }
    }
}

/// Where the resolvers are read from.
#[derive(Debug)]
pub struct Source {
    /// None where nothing changes.
    path: Option<PathBuf>,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    resolvers: Arc<Resolvers>,
    version: Option<(SystemTime, u64, u64)>,
    looked: Instant,
}

impl Source {
    /// The system's `/etc/resolv.conf`.
    #[must_use]
    pub fn system() -> Self {
        Self::file(Path::new("/etc/resolv.conf"))
    }

    /// A file of that form; one that is missing names this machine, as for the C library.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let read = Read {
            resolvers: Arc::new(load(path)),
            version: version(path),
            looked: Instant::now(),
        };
        Self {
            path: Some(path.to_owned()),
            read: Mutex::new(read),
        }
    }

    /// These, whatever the system says.
    #[must_use]
    pub fn fixed(resolvers: Resolvers) -> Self {
        let read = Read {
            resolvers: Arc::new(resolvers),
            version: None,
            looked: Instant::now(),
        };
        Self {
            path: None,
            read: Mutex::new(read),
        }
    }

    /// The resolvers as the file has them, at most a second late.
    #[must_use]
    pub fn resolvers(&self) -> Arc<Resolvers> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path
            && read.looked.elapsed() >= LOOK_EVERY
        {
            read.looked = Instant::now();
            let version = version(path);
            // While it is being replaced there may be none: what is known is better than nothing.
            if version.is_some() && version != read.version {
                read.version = version;
                let resolvers = load(path);
                if resolvers != *read.resolvers {
                    tracing::info!(servers = ?resolvers.servers, "the system's resolvers changed");
                    read.resolvers = Arc::new(resolvers);
                }
            }
        }
        Arc::clone(&read.resolvers)
    }
}

fn load(path: &Path) -> Resolvers {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(MAX_FILE).read_to_end(&mut text));
    if let Err(error) = read {
        tracing::debug!(path = %path.display(), %error, "cannot be read");
    }
    Resolvers::parse(&text)
}

/// What changes when the file does; a new file has another number even within a clock's tick.
fn version(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

/// Whether what is sent to `server` stays on this machine.
pub(super) fn is_local(server: SocketAddr) -> bool {
    let ip: IpAddr = server.ip().to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_as_systems_write_them() {
        let text = "# made by somebody\nsearch corp.example\nnameserver 10.0.0.1\n\
                    nameserver fd00::1 # two\nnonsense\noptions timeout:3 attempts:4 rotate edns0\n";
        let read = Resolvers::parse(text.as_bytes());
        let servers: Vec<SocketAddr> = ["10.0.0.1:53", "[fd00::1]:53"]
            .map(|s| s.parse().unwrap())
            .into();
        assert_eq!(read.servers, servers);
        assert_eq!(
            (read.timeout.as_secs(), read.attempts, read.rotate),
            (3, 4, true)
        );
        let none = Resolvers::parse(b"\xff\xfe\nsearch x\n");
        assert_eq!(none.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((none.timeout.as_secs(), none.attempts), (5, 2));
        let many = "nameserver 10.0.0.1\n".repeat(50);
        assert_eq!(Resolvers::parse(many.as_bytes()).servers.len(), MAX_SERVERS);
        let scoped = Resolvers::parse(b"nameserver fe80::1%1\n");
        assert_eq!(
            scoped.servers[0],
            SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 1).into()
        );
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let source = Source::file(&path);
        assert_eq!(source.resolvers().servers[0].ip().to_string(), "10.0.0.1");
        std::fs::write(&path, "nameserver 10.0.0.22\n").unwrap();
        source.read.lock().unwrap().looked -= LOOK_EVERY;
        assert_eq!(source.resolvers().servers[0].ip().to_string(), "10.0.0.22");
        std::fs::remove_file(&path).unwrap();
        source.read.lock().unwrap().looked -= LOOK_EVERY;
        assert_eq!(source.resolvers().servers[0].ip().to_string(), "10.0.0.22");
    }
}
