//! `kdev connect`.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::terminal::word;
use super::{SettingFlags, output, signalled};
use crate::app::connect::Connected;
use crate::config::{Config, Given, on};

const EXAMPLES: &str = "\
Examples:
  kdev connect                                    print how to use it, serve until Ctrl-C
  kdev connect --proxy-listen 127.0.0.1:1080      for curl -x socks5h://127.0.0.1:1080 http://web.shop/
  kdev connect --json | jq -r .socks5             for scripts: one line once it is ready
  kdev connect --dns-listen 5353                  serve DNS on a port that your resolver knows
  kdev connect --resolve-in-cluster corp.example  resolve a domain that only the cluster's DNS knows

The port speaks SOCKS5 (UDP too), SOCKS4a and HTTP. It serves this user's own programs only. Names that
do not belong to the cluster are dialled from this laptop as always. Browsers take the PAC file.

HTTP requests to Services that you intercept with `kdev intercept --mine` get baggage kdev=YOU on their
way, so that a browser needs no extension; nothing else is changed. TLS and HTTP/2 are not looked
into, and --mine-header off leaves all as it is.

The DNS server answers for the cluster (A, AAAA, SRV, PTR, CNAME, TXT), has the relay ask the
cluster's DNS about domains of --resolve-in-cluster, and relays the rest to the resolvers of
/etc/resolv.conf. To let all programs use it, with --dns-listen 127.0.0.1:5353:
  systemd-resolved   in /etc/systemd/resolved.conf.d/kdev.conf
                     [Resolve]
                     DNS=127.0.0.1:5353
                     Domains=~cluster.local
  dnsmasq            server=/cluster.local/127.0.0.1#5353
  macOS              in /etc/resolver/cluster.local
                     nameserver 127.0.0.1
                     port 5353
The addresses are those of the cluster: programs still need the proxy to connect to them.

Exit code: 0 after Ctrl-C, 143 after SIGTERM, 1 when it failed.";

/// Serve a proxy and DNS for the cluster until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConnectArgs {
    #[command(flatten)]
    settings: SettingFlags<{ on::CONNECT }>,
    /// Print one line of JSON with the addresses once ready
    #[arg(long)]
    json: bool,
}

impl ConnectArgs {
    /// The settings that the command line gives.
    pub(super) fn given(&self) -> Given {
        self.settings.given()
    }
}

pub(super) async fn run(args: ConnectArgs, config: &Config) -> anyhow::Result<u8> {
    let note = Arc::new(output::note);
    let opening = Connected::open(config, note);
    let connected = output::progress("Connecting to the cluster", opening).await?;
    let address = connected.address();
    let about = connected.session().client.about();
    let (socks, http) = (format!("socks5h://{address}"), format!("http://{address}"));
    let pac = format!("http://{address}/proxy.pac");
    let dns = connected.dns();
    if args.json {
        let ready = json!({
            "proxy": address.to_string(),
            "socks5": socks,
            "http": http,
            "pac": pac,
            "dns": dns.to_string(),
            "context": about.context,
            "server": about.server,
            "namespace": about.namespace,
            "pid": std::process::id(),
        });
        output::json(&ready, false)?;
    } else {
        // A kubeconfig may come from anybody.
        let (context, server) = (word(&about.context), word(&about.server));
        let namespace = &about.namespace;
        let (ip, port, domain) = (dns.ip(), dns.port(), connected.session().domain());
        output::line(&format!(
            "Connected to {context} ({server}), namespace {namespace}\n\
             \x20 SOCKS5  {socks}\n\
             \x20 HTTP    {http}\n\
             \x20 PAC     {pac}\n\
             \x20 DNS     {dns} (UDP and TCP)\n\
             Try: curl -x {socks} http://SERVICE.{namespace}/\n\
             \x20    dig @{ip} -p {port} SERVICE.{namespace}.svc.{domain}\n\
             Ctrl-C ends it."
        ))?;
    }
    Ok(signalled(connected.until_signal().await?))
}
