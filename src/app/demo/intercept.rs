//! The step of the demo in which a Service's requests come to this laptop.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use kdev_sim::shop;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

use super::{NETWORK_FILES, STEP_TIMEOUT, Stage, answer_all, asked, send};

/// Whose requests they are.
const MINE: &str = "x-user: ada";
/// What the program on the laptop answers.
const LAPTOP: &str = "hello from this laptop\n";

impl Stage {
    /// Requests with one header come here, all others go where they always went.
    pub(super) async fn intercept(&self) -> anyhow::Result<()> {
        let Some(network) = &self.network else {
            self.say(&format!(
                "  (left out: it takes loopback addresses besides 127.0.0.1, as on Linux, and \
                 {NETWORK_FILES} open files)"
            ));
            return Ok(());
        };
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let cart = network.service("cart", shop::CART);
        let port = app.local_addr()?.port();
        tokio::select! {
            played = tokio::time::timeout(2 * STEP_TIMEOUT, self.intercepted(cart, port)) => {
                played.context("the intercept took too long")?
            }
            served = answer_all(&app, LAPTOP) => served,
        }
    }

    async fn intercepted(&self, cart: SocketAddr, port: u16) -> anyhow::Result<()> {
        let to = port.to_string();
        self.say(&format!(
            "$ kdev intercept cart --to {to} --header '{MINE}' &"
        ));
        let mut command = self.command("dev");
        command.args(["intercept", "cart", "--to", &to, "--header", MINE]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err) = (out.context("no output")?, err.context("no output")?);
        let (mut out, mut err) = (BufReader::new(out).lines(), BufReader::new(err).lines());
        // The last line before those about requests.
        loop {
            let line = tokio::select! {
                line = out.next_line() => line?,
                line = err.next_line() => line?,
            };
            let Some(line) = line else {
                bail!("kdev intercept ended")
            };
            self.say(&line);
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        self.say("  (callers in the cluster:)");
        ensure!(
            self.called(cart, "").await?.contains("cart-"),
            "not for others"
        );
        ensure!(
            self.called(cart, MINE).await? == LAPTOP,
            "not to this laptop"
        );
        // What it says of the request.
        self.say(&out.next_line().await?.unwrap_or_default());
        self.say("$ kill -INT %1");
        send(&child, Signal::SIGINT)?;
        while let Some(line) = err.next_line().await? {
            if line.contains("its own pods again") {
                self.say(&line);
                break;
            }
        }
        ensure!(
            self.called(cart, MINE).await?.contains("cart-"),
            "the Service was not given back"
        );
        // What is left is for callers that come late, of which there are none.
        send(&child, Signal::SIGINT)?;
        child.wait().await?;
        Ok(())
    }

    /// What a caller in the cluster gets, with one more header.
    async fn called(&self, cart: SocketAddr, header: &str) -> anyhow::Result<String> {
        let more = match header {
            "" => String::new(),
            header => format!("{header}\r\n"),
        };
        let request = format!("GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n{more}\r\n");
        let (_, body) = asked(cart, &request).await?;
        let flag = match header {
            "" => String::new(),
            header => format!("-H '{header}' "),
        };
        self.say(&format!("$ curl {flag}http://cart:{}/", shop::CART));
        self.say(body.trim_end());
        Ok(body)
    }
}
