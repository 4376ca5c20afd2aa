use http::HeaderMap;

use super::*;
use crate::dial::{Marker, Standing};

/// Marks the requests of each Service's port 80.
struct Ports80;

impl Marker for Ports80 {
    fn any(&self) -> bool {
        true
    }

    fn standing(&self, _: &Namespaced, port: u16) -> Option<Standing> {
        (port == 80).then_some(Standing::Settled)
    }

    fn mark(&self, service: &Namespaced, _: u16, headers: &mut HeaderMap) {
        headers.insert("x", service.to_string().parse().unwrap());
    }
}

#[tokio::test]
async fn only_what_leads_to_a_service_is_marked() {
    let one_pod = match pods("web") {
        Resolution::Pods(endpoints) => Resolution::Pods(Endpoints {
            service: None,
            ..endpoints
        }),
        other => panic!("{other:?}"),
    };
    let names = [
        ("web", pods("web")),
        ("10.96.0.7", pods("web")),
        ("api", pods("api")),
        ("front", alias("web.shop.svc.cluster.local")),
        ("web.shop.svc.cluster.local", pods("web")),
        ("web-0.web", one_pod),
        ("hidden", pods("web")),
        ("out", alias("web.example.com")),
        ("circle", alias("circle.svc.cluster.local")),
    ];
    let router = router(&names, &[], &["hidden"]);
    let unmarked = router.clone();
    let router = router.with_marker(Some(Arc::new(Ports80)));
    for (target, service) in [
        ("web:80", Some("web.shop")),
        ("10.96.0.7:80", Some("web.shop")),
        ("api:80", Some("api.shop")),
        ("front:80", Some("web.shop")),
        ("web:81", None),
        ("web-0.web:80", None),
        ("hidden:80", None),
        ("out:80", None),
        ("circle:80", None),
        ("example.com:80", None),
    ] {
        let target: Target = target.parse().unwrap();
        let mark = router.mark(&target);
        let marked = mark.as_ref().map(|mark| {
            let mut headers = HeaderMap::new();
            mark.add(&mut headers);
            headers["x"].to_str().unwrap().to_owned()
        });
        assert_eq!(marked.as_deref(), service, "{target}");
        // What is dialled has the same mark; what fails has none to have.
        match router.dial_http(&target).await {
            Ok(dialled) => assert_eq!(dialled.mark, mark, "{target}"),
            Err(_) => assert_eq!(mark, None, "{target}"),
        }
        assert_eq!(unmarked.mark(&target), None);
    }
}
