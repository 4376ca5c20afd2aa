//! A command that goes past kdev: that is said once, and calmly, for a command may well need
//! nothing of the cluster.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Observer;

/// How long a command may run without a connection before that is said. Programs that need the
/// cluster ask for it when they start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What helps a program that goes past kdev, with the local port that it can use instead.
fn advice(port: &str) -> String {
    format!(
        "If it needs the cluster: programs that read no proxy variables (psql, redis-cli, Node before \
         22.21, static binaries) take a local port, {port}; others have a proxy setting of their own, \
         for $HTTP_PROXY or $KDEV_SOCKS_PROXY (--quiet leaves this out)"
    )
}

/// Exit codes by which an engine, a shell or kdev says that nothing was started.
const NOT_STARTED: [u8; 3] = [125, 126, 127];

/// Looks whether connections come from a command.
#[derive(Debug)]
pub(super) struct Unused {
    /// What it is called.
    name: String,
    /// What helps it.
    advice: String,
    /// The connections that came before it; `None` where that is not known.
    before: Option<u64>,
    until: Instant,
    settled: bool,
}

impl Unused {
    /// For the command `argv`, which is about to start.
    pub(super) fn new(argv: &[OsString], before: Option<u64>) -> Self {
        let program = argv.first().map(Path::new);
        let name = program.and_then(Path::file_name).unwrap_or_default();
        Self {
            name: format!("`{}`", name.to_string_lossy()),
            advice: advice("`kdev forward SERVICE:PORT`"),
            before,
            until: Instant::now() + PATIENCE,
            settled: false,
        }
    }

    /// The same for a container, which reaches `ip` of this machine as `host`.
    pub(super) fn container(before: Option<u64>, ip: IpAddr, host: &str) -> Self {
        let unused = Self::new(&[], before);
        let name = "the container".to_owned();
        if ip.is_loopback() {
            return Self { name, ..unused };
        }
        let local = SocketAddr::new(ip, 0).to_string();
        let local = local.trim_end_matches('0');
        let port =
            format!("`kdev forward SERVICE:PORT={local}PORT`, which it reaches as {host}:PORT");
        Self {
            name,
            advice: advice(&port),
            ..unused
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Completes when it is time to look while the command runs.
    pub(super) async fn due(&self) {
        match self.settled {
            true => std::future::pending().await,
            false => sleep_until(self.until).await,
        }
    }

    /// Looks while it runs. `came` are the connections until now, where that is known; those of
    /// other commands may be among them, and then nothing is said.
    pub(super) fn look(&mut self, came: Option<u64>, observer: &impl Observer) {
        self.settle(came, "has made no connection through kdev so far", observer);
    }

    /// Looks after it has ended.
    pub(super) fn ended(&mut self, code: u8, came: Option<u64>, observer: &impl Observer) {
        if !NOT_STARTED.contains(&code) {
            self.settle(came, "made no connection through kdev", observer);
        }
    }

    fn settle(&mut self, came: Option<u64>, what: &str, observer: &impl Observer) {
        if !self.settled && self.before.is_some() && came == self.before {
            observer.remark(&format!("{} {what}. {}", self.name, self.advice));
        }
        self.settled = true;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Look = dyn Fn(&mut Unused, &Heard);

    #[derive(Default)]
    struct Heard(RefCell<Vec<String>>);

    impl Observer for Heard {
        fn note(&self, _: &str) {
            unreachable!("it is no more than a remark");
        }

        fn remark(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }

        fn teller(&self) -> crate::app::Note {
            unreachable!("nothing runs")
        }

        async fn during<T>(&self, _: &str, work: impl Future<Output = T>) -> T {
            work.await
        }
    }

    #[tokio::test]
    async fn it_is_said_once_and_only_where_it_is_certain() {
        let psql = || Unused::new(&["/usr/bin/psql".into()], Some(7));
        let said = |look: &Look, mut unused: Unused| {
            let heard = Heard::default();
            look(&mut unused, &heard);
            heard.0.into_inner()
        };
        let once = said(
            &|u, h| {
                u.look(Some(7), h);
                u.ended(1, Some(7), h);
            },
            psql(),
        );
        assert_eq!(once.len(), 1);
        assert!(once[0].starts_with("`psql` has made no connection through kdev so far. If"));
        let at_the_end = said(&|u, h| u.ended(0, Some(7), h), psql());
        assert!(at_the_end[0].starts_with("`psql` made no connection through kdev. "));
        let silent: [&Look; 4] = [
            &|u, h| u.ended(0, Some(8), h),
            &|u, h| u.ended(0, None, h),
            &|u, h| u.ended(127, Some(7), h),
            // One that had come was enough.
            &|u, h| {
                u.look(Some(8), h);
                u.ended(0, Some(8), h);
            },
        ];
        for (n, look) in silent.into_iter().enumerate() {
            assert_eq!(said(look, psql()), [""; 0], "{n}");
        }
        for (ip, port) in [
            ("127.0.0.1", "`kdev forward SERVICE:PORT`; "),
            (
                "172.17.0.1",
                "`kdev forward SERVICE:PORT=172.17.0.1:PORT`, which it reaches as bridge:PORT; ",
            ),
            (
                "fd00::1",
                "`kdev forward SERVICE:PORT=[fd00::1]:PORT`, which it reaches as bridge:PORT; ",
            ),
        ] {
            let container = Unused::container(Some(7), ip.parse().unwrap(), "bridge");
            let text = said(&|u, h| u.ended(0, Some(7), h), container).remove(0);
            assert!(text.starts_with("the container made no"), "{text}");
            assert!(
                text.contains(&format!("take a local port, {port}")),
                "{text}"
            );
        }
        let unknown = Unused::new(&["psql".into()], None);
        assert_eq!(said(&|u, h| u.ended(0, None, h), unknown), [""; 0]);
    }
}
