//! The JVM, which looks at no proxy variable: it is told by system properties.
//!
//! Both kinds of proxy are given, because each reaches what the other does not: `http.proxyHost`
//! serves `HttpURLConnection`, `java.net.http.HttpClient` and gRPC; `socksProxyHost` serves every
//! plain `Socket`, so JDBC drivers and Jedis. With both set, an HTTP URL takes the HTTP proxy and
//! its connection to that proxy does not go through SOCKS. A name that the laptop cannot resolve
//! is sent to the SOCKS proxy as a name. NIO (Netty: Lettuce, R2DBC, Cassandra) uses neither.
//! (Checked with OpenJDK 17.)
//!
//! No credentials: the JVM prints `JAVA_TOOL_OPTIONS` on stderr at every start, so a password
//! would end in logs, and it has no property for an HTTP proxy's password anyway.

use super::ProxyAddress;

/// The user's options with kdev's behind them: the last definition of a property wins.
#[must_use]
pub fn tool_options(user: Option<&str>, proxy: &ProxyAddress, no_proxy: &[String]) -> String {
    let (host, port) = (&proxy.host, proxy.port);
    let past = non_proxy_hosts(no_proxy);
    let ours = format!(
        "-Dhttp.proxyHost={host} -Dhttp.proxyPort={port} \
         -Dhttps.proxyHost={host} -Dhttps.proxyPort={port} \
         -DsocksProxyHost={host} -DsocksProxyPort={port} \
         -Dhttp.nonProxyHosts={past} -DsocksNonProxyHosts={past}"
    );
    match user.map(str::trim).filter(|u| !u.is_empty()) {
        Some(user) => format!("{user} {ours}"),
        None => ours,
    }
}

/// A `NO_PROXY` list in Java's form: `|` between patterns, `*` at either end of one.
fn non_proxy_hosts(no_proxy: &[String]) -> String {
    let mut patterns = vec![
        "localhost".to_owned(),
        "127.*".to_owned(),
        "[::1]".to_owned(),
    ];
    for entry in no_proxy {
        for pattern in pattern(entry) {
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
    }
    patterns.join("|")
}

fn pattern(entry: &str) -> Vec<String> {
    // Options are split at blanks and quotes; an entry with either is not a host.
    if entry.contains(|c: char| c.is_whitespace() || "'\"|".contains(c)) {
        return Vec::new();
    }
    if let Some((ip, bits)) = entry.split_once('/') {
        let octets: Vec<&str> = ip.split('.').collect();
        let whole = match bits {
            "8" => 1,
            "16" => 2,
            "24" => 3,
            // Java has no other ranges.
            _ => return Vec::new(),
        };
        return match octets.get(..whole) {
            Some(prefix) if octets.len() == 4 => vec![format!("{}.*", prefix.join("."))],
            _ => Vec::new(),
        };
    }
    match entry {
        "127.0.0.1" => Vec::new(),
        _ if entry.starts_with("*.") || entry.ends_with(".*") => vec![entry.to_owned()],
        _ if entry.starts_with('.') => vec![format!("*{entry}")],
        _ if entry.parse::<std::net::Ipv6Addr>().is_ok() => vec![format!("[{entry}]")],
        _ if entry.parse::<std::net::Ipv4Addr>().is_ok() => vec![entry.to_owned()],
        // Java knows no port here.
        _ if entry.contains(':') => Vec::new(),
        _ => vec![entry.to_owned(), format!("*.{entry}")],
    }
}
