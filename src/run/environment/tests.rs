use super::*;

fn settings() -> Settings {
    Settings {
        proxy: ProxyAddress::new("127.0.0.1", 1080),
        direct: Vec::new(),
        domain: "cluster.local".to_owned(),
        context: Some("kind-dev".to_owned()),
        namespace: Some("shop".to_owned()),
        all_proxy: AllProxy::default(),
    }
}

fn with(inherited: &[(&str, &str)]) -> Variables {
    variables(&settings(), |name| {
        inherited
            .iter()
            .find_map(|(n, v)| (*n == name).then(|| (*v).to_owned()))
    })
}

#[test]
fn the_common_variables_in_both_cases() {
    let vars = with(&[("HTTP_PROXY", "http://corp:3128"), ("PATH", "/bin")]);
    for (name, value) in [
        ("HTTP_PROXY", "http://127.0.0.1:1080"),
        ("http_proxy", "http://127.0.0.1:1080"),
        ("HTTPS_PROXY", "http://127.0.0.1:1080"),
        ("https_proxy", "http://127.0.0.1:1080"),
        // httpx refuses to start with a SOCKS proxy here.
        ("ALL_PROXY", "http://127.0.0.1:1080"),
        ("all_proxy", "http://127.0.0.1:1080"),
        ("KDEV_SOCKS_PROXY", "socks5h://127.0.0.1:1080"),
        ("NO_PROXY", "localhost,127.0.0.1,::1"),
        ("no_proxy", "localhost,127.0.0.1,::1"),
        ("grpc_proxy", "http://127.0.0.1:1080"),
        ("NODE_USE_ENV_PROXY", "1"),
        ("npm_config_https_proxy", "http://127.0.0.1:1080"),
        ("PIP_PROXY", "http://127.0.0.1:1080"),
        ("KDEV_SOCKS", "127.0.0.1:1080"),
        ("KDEV_CONTEXT", "kind-dev"),
        ("KDEV_NAMESPACE", "shop"),
    ] {
        assert_eq!(vars.get(name), Some(value), "{name}");
    }
    assert_eq!(vars.get("PATH"), None);
    let mut names: Vec<_> = vars.set.iter().map(|(n, _)| n).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "a name is set twice");
}

#[test]
fn no_standard_variable_says_socks_unless_asked_to() {
    let mut settings = settings();
    let socks = |settings: &Settings| {
        let all = variables(settings, |_| None).set.into_iter();
        let names = all.filter(|(_, value)| value.contains("socks5"));
        let mut names: Vec<String> = names.map(|(name, _)| name).collect();
        names.sort();
        names
    };
    assert_eq!(socks(&settings), ["KDEV_SOCKS_PROXY"]);
    settings.all_proxy = AllProxy::Socks;
    assert_eq!(
        socks(&settings),
        ["ALL_PROXY", "KDEV_SOCKS_PROXY", "all_proxy"]
    );
    let vars = variables(&settings, |_| None);
    assert_eq!(vars.get("ALL_PROXY"), Some("socks5h://127.0.0.1:1080"));
}

#[test]
fn credentials_are_encoded_in_urls_and_nowhere_else() {
    let mut settings = settings();
    settings.proxy = ProxyAddress::new("fd00::1", 8080).with_credentials(Credentials {
        user: "kdev".to_owned(),
        password: "p@ss/w:rd".to_owned(),
    });
    let vars = variables(&settings, |_| None);
    assert_eq!(
        vars.get("HTTP_PROXY"),
        Some("http://kdev:p%40ss%2Fw%3Ard@[fd00::1]:8080")
    );
    assert_eq!(vars.get("KDEV_HTTP"), Some("[fd00::1]:8080"));
    for name in ["JAVA_TOOL_OPTIONS", "NO_PROXY", "KDEV_SOCKS"] {
        assert!(!vars.get(name).unwrap().contains("p%40ss"), "{name}");
    }
    assert!(!format!("{:?}", settings.proxy).contains("p@ss"));
}

#[test]
fn the_users_no_proxy_is_kept_but_for_what_hides_the_cluster() {
    let vars = with(&[(
        "NO_PROXY",
        "git.corp.com,.corp.com,*,.svc,.cluster.local,local,shop.svc,10.0.0.0/8,172.20.0.0/16,\
         192.168.*,100.64.0.0/12,fc00::/7,0.0.0.0/0,169.254.169.254,203.0.113.0/24,10.1.2.3,\
         mylocal,svc2,10.*,web.shop.svc.cluster.local:80,fe80::/10,host:8080",
    )]);
    assert_eq!(
        vars.get("NO_PROXY"),
        Some(
            "localhost,127.0.0.1,::1,git.corp.com,.corp.com,169.254.169.254,203.0.113.0/24,\
             10.1.2.3,mylocal,svc2,fe80::/10,host:8080"
        )
    );
    assert_eq!(
        vars.dropped_no_proxy,
        [
            "*",
            ".svc",
            ".cluster.local",
            "local",
            "shop.svc",
            "10.0.0.0/8",
            "172.20.0.0/16",
            "192.168.*",
            "100.64.0.0/12",
            "fc00::/7",
            "0.0.0.0/0",
            "10.*",
            "web.shop.svc.cluster.local:80",
        ]
    );
}

#[test]
fn the_lower_case_no_proxy_is_the_one_in_force() {
    let vars = with(&[("NO_PROXY", "a.example"), ("no_proxy", "b.example")]);
    assert_eq!(
        vars.get("NO_PROXY"),
        Some("localhost,127.0.0.1,::1,b.example")
    );
}

#[test]
fn the_jvm_gets_both_proxies_behind_the_users_options() {
    let vars = with(&[
        ("JAVA_TOOL_OPTIONS", "-Xmx1g -Dhttp.proxyHost=corp "),
        (
            "NO_PROXY",
            ".corp.com,git.example,203.0.113.0/24,198.51.0.0/15,host:1,192.0.2.1,2001:db8::1",
        ),
    ]);
    assert_eq!(
        vars.get("JAVA_TOOL_OPTIONS"),
        Some(
            "-Xmx1g -Dhttp.proxyHost=corp \
             -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=1080 \
             -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=1080 \
             -DsocksProxyHost=127.0.0.1 -DsocksProxyPort=1080 \
             -Dhttp.nonProxyHosts=localhost|127.*|[::1]|*.localhost|*.corp.com|git.example|\
             *.git.example|203.0.113.*|192.0.2.1|[2001:db8::1] \
             -DsocksNonProxyHosts=localhost|127.*|[::1]|*.localhost|*.corp.com|git.example|\
             *.git.example|203.0.113.*|192.0.2.1|[2001:db8::1]"
        )
    );
}
