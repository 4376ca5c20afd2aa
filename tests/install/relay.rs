//! The real relay in the pods of the simulated cluster: installed, used, replaced, removed.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Done, Stage};

/// A host that only pods know by its name.
struct Inside {
    url: String,
}

impl Inside {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!(
            "http://inside.example:{}/",
            listener.local_addr().unwrap().port()
        );
        // It ends with the test's runtime.
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(async move {
            loop {
                let (mut caller, _) = listener.accept().await.unwrap();
                let _ = caller.read(&mut [0; 1024]).await;
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ninside";
                let _ = caller.write_all(answer).await;
                let _ = caller.shutdown().await;
            }
        });
        Self { url }
    }

    /// What a program in `kdev run` gets from there.
    async fn fetch(&self, stage: &Stage, more: &[&str]) -> Done {
        let kdev = env!("CARGO_BIN_EXE_kdev");
        // The pods of the simulation have this machine's loopback for an address, where a captured
        // command finds itself.
        let run = ["run", "--capture", "off", "--resolve-in-cluster", "example"];
        let fetch = ["--", kdev, "demo", "--fetch", &self.url];
        stage.kdev(&[&run, more, &fetch].concat()).await
    }
}

#[tokio::test]
async fn a_relay_that_was_installed_reaches_what_pods_reach() {
    let stage = Stage::new().await;
    let folder = stage.folder.path().join("pods");
    let hosts = "127.0.0.1 inside.example";
    kdev::app::demo::relay_pods(&stage.cluster, "shop", &folder, hosts, None);
    let inside = Inside::start().await;
    let none = inside.fetch(&stage, &[]).await;
    assert_ne!(none.code, 0);
    assert!(none.out.contains("`kdev install`"), "{none:?}");

    stage.install(&[]).await.ok();
    assert_eq!(inside.fetch(&stage, &[]).await.ok(), "inside");
    assert_eq!(
        inside.fetch(&stage, &["--via", "relay"]).await.ok(),
        "inside"
    );

    // Every pod is another one; the keys are the same.
    for pod in stage.cluster.objects("pods", "shop") {
        if pod["metadata"]["labels"]["app.kubernetes.io/name"] == "kdev-relay" {
            stage
                .cluster
                .remove_pod("shop", &crate::support::name(&pod));
        }
    }
    stage.install(&[]).await.ok();
    assert_eq!(
        inside.fetch(&stage, &["--via", "relay"]).await.ok(),
        "inside"
    );

    stage.kdev(&["uninstall", "--yes"]).await.ok();
    let gone = inside.fetch(&stage, &["--via", "relay"]).await;
    assert_ne!(gone.code, 0, "{gone:?}");
    assert!(gone.err.contains("`kdev install`"), "{gone:?}");
}

#[tokio::test]
async fn rules_come_to_the_relay_as_they_were_given() {
    let stage = Stage::new().await;
    stage.cluster.add_program("relay", |container| async move {
        let message = format!("{:?}", container.env("KDEV_DENY"));
        kdev_sim::Exit::failed(1, &message)
    });
    let failed = stage
        .install(&["--deny", "10.0.0.0/8,10.1.2.3:5432-5439"])
        .await
        .failed();
    assert!(failed.contains("10.0.0.0/8,10.1.2.3:5432-5439"), "{failed}");
    let wrong = stage.install(&["--deny", "10.0.0.0/99"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains("is no address or network"), "{wrong:?}");
}
