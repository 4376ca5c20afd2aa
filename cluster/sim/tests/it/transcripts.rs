//! The simulation against recorded connections between real clients and real servers: it hears the
//! client's side of each and has to answer what the real server did.

use std::time::Duration;

use kdev_sim::{Pod, SimStream};
use kdev_transcript::{
    CASES, Case, Decoder, Encoder, Form, Side, Transcript, What, mask, reached, told,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Tls, connect, shop, within};

const POD: &str = "peer-1";
/// How long nothing more may come behind what was recorded.
const QUIET: Duration = Duration::from_millis(200);

#[tokio::test]
async fn it_answers_as_the_real_servers_did() {
    let mut played = 0;
    for form in Form::ALL {
        for case in CASES {
            for (name, recorded) in Transcript::all(form, &case).unwrap() {
                let answered = play(form, &case, &name, &recorded).await;
                let (answered, wanted) = (
                    answered.stories(Side::Server),
                    recorded.stories(Side::Server),
                );
                let (said, should) = (told(&answered), told(&wanted));
                assert!(answered == wanted, "{name}: it said\n{said}not\n{should}");
                played += 1;
            }
        }
    }
    // All forms in all cases; v4 cannot end one direction.
    assert!(played >= Form::ALL.len() * CASES.len() - 1);
}

/// Sends back what it reads and ends when its caller has.
async fn echo(io: SimStream) {
    let (mut from, mut to) = tokio::io::split(io);
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// Answers once its caller has ended.
async fn sink(mut io: SimStream) {
    let mut all = Vec::new();
    let _ = io.read_to_end(&mut all).await;
    let _ = io.write_all(b"counted\n").await;
}

/// The recorded client's side towards the simulation, each event once what stands before it came.
async fn play(form: Form, case: &Case, name: &str, recorded: &Transcript) -> Transcript {
    let cluster = shop().await;
    cluster.set_habits(|habits| {
        habits.eof_grace = Duration::from_millis(50);
        // The containerd beside Kubernetes 1.20 ended streams without a reset.
        habits.old_runtime = name.contains(".1.20-");
    });
    cluster.add_pod(Pod::new("shop", POD).serve(9001, echo).serve(9000, sink));
    let mut player = Player {
        io: connect(&cluster).await.unwrap(),
        decoder: Decoder::new(form),
        seen: Transcript::default(),
    };
    let mut encoder = Encoder::new(form, Side::Client);
    let mut before = Transcript::default();
    for event in &recorded.events {
        let wait = event.side != Side::Server;
        if wait {
            player.until(&before, case).await;
        }
        match (&event.side, &event.what) {
            (Side::Server, what) => before.push(Side::Server, what.clone()),
            (Side::Cluster, _) => cluster.remove_pod("shop", POD),
            (Side::Client, What::Head(lines)) => player.send(head(lines).as_bytes()).await,
            // What comes behind it was not recorded.
            (Side::Client, What::End) => return player.seen,
            (Side::Client, what) => player.send(&encoder.encode(what)).await,
        }
    }
    player.until(&before, case).await;
    while tokio::time::timeout(QUIET, player.more()).await == Ok(true) {}
    player.seen
}

/// A request as it was before it was masked.
fn head(lines: &[String]) -> String {
    let mut text = format!("{} HTTP/1.1\r\n", lines[0].replace("POD", POD));
    for line in &lines[1..] {
        // The key of RFC 6455, section 1.3.
        text += &line.replace("RANDOM", "dGhlIHNhbXBsZSBub25jZQ==");
        text += "\r\n";
    }
    text + "Host: cluster\r\nAuthorization: Bearer dev-token\r\nContent-Length: 0\r\n\r\n"
}

struct Player {
    io: Tls,
    decoder: Decoder,
    seen: Transcript,
}

impl Player {
    async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Reads until everything in `before` came.
    async fn until(&mut self, before: &Transcript, case: &Case) {
        let wanted = before.stories(Side::Server);
        while !reached(&self.seen.stories(Side::Server), &wanted) {
            let ended = tokio::time::timeout(Duration::from_secs(20), self.more()).await;
            assert!(
                ended == Ok(true),
                "{}: so far\n{}wanted\n{before}",
                case.name,
                self.seen
            );
        }
    }

    /// Reads once; false at the end.
    async fn more(&mut self) -> bool {
        if self.seen.events.last().map(|e| &e.what) == Some(&What::End) {
            return false;
        }
        let mut buffer = vec![0; 16 << 10];
        let n = self.io.read(&mut buffer).await.unwrap_or(0);
        for mut what in self.decoder.feed(&buffer[..n]).unwrap() {
            if let What::Data { payload, .. } = &mut what {
                let text = String::from_utf8_lossy(payload);
                *payload = mask(&text.replace(POD, "POD")).into_bytes();
            }
            self.seen.push(Side::Server, what);
        }
        if n == 0 {
            self.seen.push(Side::Server, What::End);
        }
        true
    }
}

#[tokio::test]
async fn an_answer_that_differs_is_noticed() {
    let case = CASES.iter().find(|case| case.name == "echo").unwrap();
    let (name, recorded) = Transcript::all(Form::Spdy, case).unwrap().remove(0);
    let answered = within(play(Form::Spdy, case, &name, &recorded)).await;
    let mut other = recorded.clone();
    other.push(Side::Server, What::GoAway);
    let answered = answered.stories(Side::Server);
    assert_eq!(answered, recorded.stories(Side::Server));
    assert_ne!(answered, other.stories(Side::Server));
}
