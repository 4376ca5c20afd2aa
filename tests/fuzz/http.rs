//! The HTTP half of the proxy, and the responses of origins.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kdev::addr::Target;
use kdev::dial::{Dial, DialError, DialUdp};
use kdev::proxy::{self, Access, Config, Stats};
use kdev::task::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::{Random, fuzz};

/// Dials an origin that says the same whatever it is asked, and ends.
#[derive(Clone)]
struct Says {
    text: Arc<Mutex<Vec<u8>>>,
    tasks: Tasks,
}

impl Dial for Says {
    type Io = DuplexStream;

    async fn dial(&self, _: &Target) -> Result<DuplexStream, DialError> {
        let (near, mut far) = tokio::io::duplex(64);
        let text = self.text.lock().unwrap().clone();
        self.tasks.spawn(async move {
            let mut asked = [0; 64];
            if far.read(&mut asked).await.is_ok() {
                let _ = far.write_all(&text).await;
            }
        });
        Ok(near)
    }
}

impl DialUdp for Says {}

/// A proxy to feed, on a runtime of its own.
pub(crate) struct Proxy {
    runtime: Runtime,
    addr: std::net::SocketAddr,
    stats: Arc<Stats>,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (tasks, config) = (
            Tasks::new(),
            Config::new(Access::SameUser { password: None }),
        );
        let (stats, text) = (config.stats.clone(), Arc::default());
        let dial = Says {
            text: Arc::clone(&text),
            tasks: tasks.clone(),
        };
        let addr = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            tasks.spawn(proxy::serve(listener, dial, config, tasks.clone()));
            addr
        });
        Self {
            runtime,
            addr,
            stats,
            text,
        }
    }

    /// Sends `input` in pieces, and wants the connection to end with nothing left of it.
    pub(crate) fn feed(&self, input: &[u8], random: &mut Random) {
        let cut = random.below(input.len() + 1);
        let fed = async {
            let mut app = TcpStream::connect(self.addr).await.unwrap();
            let (mut read, mut write) = app.split();
            let sending = async {
                // The proxy may have had enough before the end.
                let _ = write.write_all(&input[..cut]).await;
                tokio::task::yield_now().await;
                let _ = write.write_all(&input[cut..]).await;
                let _ = write.shutdown().await;
            };
            let mut answer = Vec::new();
            let _ = tokio::join!(sending, read.read_to_end(&mut answer));
            while self.stats.snapshot().live > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), fed)
                .await
                .expect("the connection ends");
        });
    }
}

#[test]
fn requests() {
    let proxy = Proxy::start();
    *proxy.text.lock().unwrap() = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let seeds: &[&[u8]] = &[
        b"GET http://web.shop/a?b=c HTTP/1.1\r\nHost: web.shop\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
        b"POST http://web.shop/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
        b"PUT http://web.shop/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\nTE: trailers\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n",
        b"GET http://[::1]:80/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /proxy.pac HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT web.shop:443 HTTP/1.1\r\nHost: web.shop:443\r\nProxy-Authorization: Basic eDp5\r\n\r\ndata",
        b"GET ws://web.shop/ HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\ndata",
        b"HEAD http://web.shop/ HTTP/1.1\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
    ];
    fuzz("requests", seeds, |input, random| proxy.feed(input, random));
}

#[test]
fn responses() {
    let proxy = Proxy::start();
    let seeds: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.0 200 Fine\r\nX: y\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\ndata",
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n",
    ];
    let requests: [&[u8]; 4] = [
        b"GET http://web.shop/ HTTP/1.1\r\nTE: trailers\r\n\r\n",
        b"GET http://web.shop/ HTTP/1.0\r\n\r\n",
        b"HEAD http://web.shop/ HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET http://web.shop/ HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ];
    fuzz("responses", seeds, |input, random| {
        *proxy.text.lock().unwrap() = input.to_vec();
        proxy.feed(requests[random.below(requests.len())], random);
    });
}
