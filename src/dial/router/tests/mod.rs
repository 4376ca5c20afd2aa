use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::DuplexStream;

mod marked;
mod relay;

use super::*;
use crate::addr::Namespaced;
use crate::dial::{DialUdp, Flow, NEEDS_RELAY, PodPort};

/// A cluster of one table, and a laptop that tells what it was asked for.
#[derive(Clone, Default)]
struct World {
    names: Arc<HashMap<&'static str, Resolution>>,
    /// Why port-forward does not work.
    forbidden: Option<DialError>,
}

fn pods(service: &str) -> Resolution {
    Resolution::Pods(Endpoints {
        service: Some(Namespaced::new("shop", service)),
        pods: vec![PodPort {
            pod: Namespaced::new("shop", "a"),
            uid: String::new(),
            port: 8080,
        }],
        declared: true,
        inside: Inside {
            targets: vec!["10.96.0.7:80".parse().unwrap()],
            known: true,
        },
    })
}

fn alias(name: &str) -> Resolution {
    Resolution::Alias {
        service: Namespaced::new("shop", name),
        name: name.to_owned(),
    }
}

impl Resolve for World {
    fn resolve_as(&self, wanted: Wanted<'_>, _: &mut Notes) -> Resolution {
        // As the catalog: a short name is one only as an app writes it.
        let host = wanted.target.host.to_string();
        match self.names.get(host.as_str()) {
            Some(found) if wanted.names != Names::Absolute || host.contains(".svc.") => {
                found.clone()
            }
            _ => Resolution::Elsewhere,
        }
    }

    async fn learn_as(&self, _: Wanted<'_>, _: &mut Notes) -> Resolution {
        Resolution::Unknown
    }
}

impl DialPods for World {
    type Io = DuplexStream;

    async fn dial_pods(&self, _: &Target, _: &Endpoints) -> Result<DuplexStream, DialError> {
        match &self.forbidden {
            Some(error) => Err(error.clone()),
            None => Ok(tokio::io::duplex(8).0),
        }
    }
}

impl Dial for World {
    type Io = DuplexStream;

    async fn dial(&self, target: &Target) -> Result<DuplexStream, DialError> {
        Err(DialError::NotFound {
            what: format!("host {}", target.host),
            fix: String::new(),
        })
    }
}

impl DialUdp for World {
    async fn dial_udp(&self, target: &Target) -> Result<Flow, DialError> {
        Err(DialError::NotFound {
            what: format!("host {}", target.host),
            fix: String::new(),
        })
    }
}

fn router(
    names: &[(&'static str, Resolution)],
    also: &[&str],
    never: &[&str],
) -> Router<World, World, World> {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let world = World {
        names: Arc::new(names.iter().cloned().collect()),
        forbidden: None,
    };
    let routes = Routes::parse(&owned(also), &owned(never), &[]).unwrap();
    Router::new(world.clone(), world.clone(), world).with_routes(routes)
}

async fn decide(router: &Router<World, World, World>, target: &str) -> Decision {
    router
        .decide(&target.parse().unwrap(), &mut Notes::off())
        .await
}

fn failure(decision: &Decision) -> String {
    match &decision.way {
        Way::Failed(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rules_come_before_what_the_cluster_has() {
    let router = router(
        &[("web.shop", pods("web")), ("10.0.0.1", pods("web"))],
        &[".corp.example", "10.0.0.0/8"],
        &["web.shop:81", "db.corp.example"],
    );
    let way = async |target: &str| decide(&router, target).await.way;
    assert!(matches!(way("web.shop:80").await, Way::Cluster(_)));
    assert!(matches!(way("web.shop:81").await, Way::Laptop));
    assert!(matches!(way("10.0.0.1:80").await, Way::Cluster(_)));
    assert!(matches!(way("db.corp.example:80").await, Way::Laptop));
    assert!(matches!(way("github.com:80").await, Way::Laptop));
    for (target, expected) in [
        (
            "api.corp.example:80",
            "also-proxy .corp.example sends it into the cluster",
        ),
        (
            "10.9.9.9:80",
            "no address of a Service or pod that you may see",
        ),
    ] {
        let decision = decide(&router, target).await;
        let text = failure(&decision);
        assert!(
            text.contains(expected) && text.contains(NEEDS_RELAY),
            "{text}"
        );
        assert!(decision.rule.is_some());
    }
}

#[tokio::test]
async fn aliases_lead_on_into_the_cluster_and_out_of_it() {
    let router = router(
        &[
            ("front", alias("web.shop.svc.cluster.local")),
            ("web.shop.svc.cluster.local", pods("web")),
            ("out", alias("db.example.com")),
            ("short", alias("web")),
            ("web", pods("web")),
            ("number", alias("10.0.0.1")),
        ],
        &[],
        &[],
    );
    let inside = decide(&router, "front:80").await;
    assert!(matches!(inside.way, Way::Cluster(_)));
    assert_eq!(inside.target.to_string(), "web.shop.svc.cluster.local:80");
    let outside = decide(&router, "out:5432").await;
    assert!(matches!(outside.way, Way::Laptop));
    assert_eq!(outside.target.to_string(), "db.example.com:5432");
    assert_eq!(outside.aliases.len(), 1);
    // An alias is complete as it stands: no search list makes `web` a Service.
    assert!(matches!(decide(&router, "short:80").await.way, Way::Laptop));
    let number = failure(&decide(&router, "number:80").await);
    assert!(number.contains("is no DNS name"), "{number}");
    let error = router.dial(&"out:1".parse().unwrap()).await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("host db.example.com was not found; Service")
            && error.to_string().contains("ExternalName"),
        "{error}"
    );
}

#[tokio::test]
async fn aliases_in_a_circle_end() {
    let router = router(
        &[
            ("a", alias("b.x.svc.cluster.local")),
            ("b.x.svc.cluster.local", alias("c.x.svc.cluster.local")),
            ("c.x.svc.cluster.local", alias("b.x.svc.cluster.local")),
        ],
        &[],
        &[],
    );
    let text = failure(&decide(&router, "a:80").await);
    assert!(text.contains("its aliases lead nowhere: b.x"), "{text}");
}

#[tokio::test]
async fn more_aliases_than_a_resolver_follows_are_an_error() {
    let names: Vec<String> = (0..=MAX_ALIASES + 1)
        .map(|i| format!("n{i}.x.svc.cluster.local"))
        .collect();
    let leak = |text: &String| -> &'static str { Box::leak(text.clone().into_boxed_str()) };
    let mut table: Vec<(&'static str, Resolution)> = names
        .windows(2)
        .map(|pair| (leak(&pair[0]), alias(&pair[1])))
        .collect();
    table.push((leak(&names[MAX_ALIASES + 1]), pods("web")));
    let router = router(&table, &[], &[]);
    let from = |i: usize| format!("{}:80", names[i]);
    let allowed = decide(&router, &from(1)).await;
    assert!(matches!(allowed.way, Way::Cluster(_)), "{allowed:?}");
    assert_eq!(allowed.aliases.len(), MAX_ALIASES);
    failure(&decide(&router, &from(0)).await);
}

/// A stream that is refused late, as by whoever dialled another address for it.
struct Late(DialError);

impl tokio::io::AsyncRead for Late {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(self.0.clone().into_io()))
    }
}

impl tokio::io::AsyncWrite for Late {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

impl crate::io::Io for Late {}

#[tokio::test]
async fn a_late_refusal_names_what_was_asked_for() {
    use tokio::io::AsyncReadExt as _;
    let (asked, dialled) = ("web.shop:80", "10.96.0.7:80");
    let late = Late(DialError::TimedOut {
        target: dialled.to_owned(),
        after: std::time::Duration::from_secs(7),
    });
    let parsed = |text: &str| text.parse::<Target>().unwrap();
    let mut stream = asked::asked(late, &parsed(dialled), &parsed(asked));
    let error = stream.read_u8().await.unwrap_err();
    let cause = DialError::from_io(&error).unwrap();
    assert_eq!(cause.to_string(), "web.shop:80 did not answer within 7 s");
}
