//! The listening side: a port that stays the cluster's own, and connections that can be cut.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::task::Tasks;
use crate::world::World;
use crate::{api, link};

/// Connections that may wait to be accepted; as many as a test opens at once.
const BACKLOG: u32 = 1024;

/// Buffer between the link and TLS, each way; one TLS record and a half.
const BUFFER: usize = 32 * 1024;

/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The API server's socket and everything connected to it.
pub(crate) struct Server {
    /// Holds the port while nothing listens, so that a restart finds it free.
    _reserved: TcpSocket,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    world: Arc<World>,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    listener: Tasks,
    connections: Arc<Mutex<Tasks>>,
}

impl Server {
    /// Reserves a port; nothing listens yet.
    pub(crate) fn new(world: Arc<World>, acceptor: TlsAcceptor) -> io::Result<Self> {
        let reserved = bind(SocketAddr::from((world.options.listen, 0)))?;
        let address = reserved.local_addr()?;
        let running = Mutex::new(None);
        Ok(Self {
            _reserved: reserved,
            address,
            acceptor,
            world,
            running,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens; does nothing when it does already.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Ok(());
        }
        let listener = bind(self.address)?.listen(BACKLOG)?;
        let tasks = Tasks::default();
        let connections = Arc::new(Mutex::new(tasks.child()));
        tasks.spawn(accept(
            listener,
            self.world.clone(),
            self.acceptor.clone(),
            connections.clone(),
        ));
        *running = Some(Running {
            listener: tasks,
            connections,
        });
        Ok(())
    }

    /// Stops listening and cuts every connection, as a killed process does.
    pub(crate) async fn stop(&self) {
        let Some(running) = self.lock().take() else {
            return;
        };
        running.listener.stop();
        running.listener.stopped().await;
        let connections = locked(&running.connections).clone();
        connections.stopped().await;
    }

    /// The same without waiting.
    pub(crate) fn abandon(&self) {
        if let Some(running) = self.lock().take() {
            running.listener.stop();
        }
    }

    /// Cuts every connection and goes on listening.
    pub(crate) fn drop_connections(&self) {
        if let Some(running) = self.lock().as_ref() {
            let mut connections = locked(&running.connections);
            let old = std::mem::replace(&mut *connections, running.listener.child());
            old.stop();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        locked(&self.running)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    world: Arc<World>,
    acceptor: TlsAcceptor,
    connections: Arc<Mutex<Tasks>>,
) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let tasks = locked(&connections).clone();
                tasks.spawn(connection(
                    socket,
                    world.clone(),
                    acceptor.clone(),
                    tasks.clone(),
                ));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One client's connection: the link with its faults, TLS, HTTP, and what HTTP was upgraded to.
async fn connection(socket: TcpStream, world: Arc<World>, acceptor: TlsAcceptor, tasks: Tasks) {
    let _counted = world.counters.connections.enter();
    // Only latency is at stake.
    let _ = socket.set_nodelay(true);
    let (near, far) = tokio::io::duplex(BUFFER);
    let path = world.faults.path();
    let served = async {
        // What goes wrong here is the client's doing, and the client sees it too.
        let Ok(tls) = acceptor.accept(far).await else {
            return;
        };
        let certificate = tls
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        let certified = certificate.and_then(|der| world.rbac.certified(der));
        let service = service_fn(|request| {
            let answer = api::answer(world.clone(), tasks.clone(), certified.clone(), request);
            async { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .title_case_headers(true)
            .serve_connection(TokioIo::new(tls), service)
            .with_upgrades()
            .await;
    };
    tokio::join!(link::carry(socket, near, path), served);
}
