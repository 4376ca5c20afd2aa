//! NetworkPolicies: nobody is cut off by an intercept.

use super::*;

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
const REFUSED: DialError = DialError::Refused {
    target: String::new(),
    reason: String::new(),
};

async fn add(stage: &Stage, name: &str, spec: Value) {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    });
    stage.client.post::<Value>(POLICIES, &policy).await.unwrap();
}

/// Callers and the relay may go to the app, and nobody to anything else.
async fn deny_all_but_callers(stage: &Stage) {
    add(
        stage,
        "deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    )
    .await;
    let from =
        ["caller", "kdev-relay"].map(|app| json!({"podSelector": {"matchLabels": {"app": app}}}));
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]});
    add(stage, "web-callers", spec).await;
}

/// Lets everybody into the relay.
async fn open_relay(stage: &Stage) {
    let own = json!({"matchLabels": {"app.kubernetes.io/name": "kdev-relay"}});
    let rule = json!({"ports": [{"protocol": "TCP", "port": 20_000, "endPort": 20_511}]});
    add(
        stage,
        "relay",
        json!({"podSelector": own, "ingress": [rule]}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_would_not_get_into_the_relay_are_kept_from_it() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    deny_all_but_callers(&stage).await;
    let before = stage.service("web").unwrap();
    let refused = stage.redirect("a").await.unwrap_err();
    assert!(matches!(refused, RedirectError::Unfit { .. }), "{refused}");
    let text = refused.to_string();
    for part in [
        "pods with app=caller may reach port http (80) of web today",
        "NetworkPolicy deny",
        "kdev install -n shop --network-policy on",
        "ingress: [{ports: [{endPort: 20511, port: 20000, protocol: TCP}]}]",
        ". With --force it goes on all the same: callers may get no answer",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Errors show as the fix what stands behind the last semicolon.
    let (_, fix) = text.rsplit_once("; ").unwrap();
    assert!(fix.starts_with("a network policy may keep"), "{fix}");
    assert_eq!(stage.service("web").unwrap(), before, "not even a version");
    assert!(stage.origins().is_empty());
    assert!(stage.inside.asked.lock().unwrap().is_empty());
    // At one's own risk, which is said.
    let forced = Wanted {
        force: true,
        ..stage.wanted("b")
    };
    let mut guard = stage.redirector().redirect(forced).await.unwrap();
    assert!(!guard.relays_are_like_callers());
    guard.restore().await.unwrap();
    let said = stage.said.lock().unwrap().join("\n");
    assert!(
        said.contains("by --force, although pods with app=caller"),
        "{said}"
    );
    assert!(said.contains("; callers may get no answer"), "{said}");
    // With the rule that was named it just works.
    open_relay(&stage).await;
    let mut guard = stage.redirect("c").await.unwrap();
    assert!(guard.relays_are_like_callers());
    guard.restore().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_policies_depends_on_what_is_tried() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    deny_all_but_callers(&stage).await;
    let before = stage.as_it_is("web");
    let write = ["get", "list", "watch", "create", "patch", "delete"];
    let user = User::new("narrow")
        .rule(Rule::new(&write, &["services"]).namespace("shop"))
        .rule(Rule::new(&write[..3], &["pods"]).namespace("shop"))
        .rule(Rule::new(&["get"], &["deployments"]).namespace("shop"))
        .rule(Rule::new(&["get", "create", "patch"], &["configmaps"]).namespace("shop"));
    let narrow = stage.world.client_with(user, "narrow").await;
    stage.answers(|answers| answers.relays = Some(REFUSED));
    let redirector = stage.redirector_as(&narrow);
    let refused = redirector.redirect(stage.wanted("a")).await.unwrap_err();
    assert!(matches!(refused, RedirectError::Shut { .. }), "{refused}");
    assert!(
        refused.to_string().contains("--network-policy on"),
        "{refused}"
    );
    // It was found out before the Service was touched.
    assert_eq!(stage.as_it_is("web"), before);
    assert!(stage.origins().is_empty());
    let said = stage.said.lock().unwrap().clone();
    assert_eq!(
        said.last().unwrap(),
        "waiting for the relay's pods to reach each other where callers will arrive"
    );
    stage.answers(|answers| answers.relays = None);
    // Neither EndpointSlices nor Endpoints may be read: the pods say who is ready.
    let mut guard = redirector.redirect(stage.wanted("b")).await.unwrap();
    guard.restore().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lets_callers_in_and_itself_not_is_no_reason() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    deny_all_but_callers(&stage).await;
    let own = json!({"matchLabels": {"app.kubernetes.io/name": "kdev-relay"}});
    let from = json!([{"podSelector": {"matchLabels": {"app": "caller"}}}]);
    add(
        &stage,
        "relay-callers",
        json!({"podSelector": own, "ingress": [{"from": from}]}),
    )
    .await;
    stage.answers(|answers| answers.relays = Some(REFUSED));
    // As the relay calls the app as well by the rules, but it is no caller.
    let mut guard = stage.redirect("a").await.unwrap();
    assert!(!guard.relays_are_like_callers());
    guard.restore().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_that_nobody_asked_for_is_told_and_no_more() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    stage.answers(|answers| answers.port = Some((2, REFUSED)));
    let mut guard = stage.redirect("a").await.unwrap();
    guard.restore().await.unwrap();
    let said = stage.said.lock().unwrap().join("\n");
    assert!(
        said.contains("does not reach port admin (9090) of web"),
        "{said}"
    );
    // The one that was asked for is another matter, and has a name.
    let admin = Wanted {
        port: 9090,
        ..stage.wanted("b")
    };
    stage.said.lock().unwrap().clear();
    let refused = stage.redirector().redirect(admin).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        matches!(refused, RedirectError::Unreachable { .. }),
        "{text}"
    );
    assert!(!text.contains("kdev-20"), "{text}");
    // Of all that it did, the last is what took long.
    let said = stage.said.lock().unwrap().clone();
    assert_eq!(
        said.last().unwrap(),
        "waiting for the relay to reach port admin (9090) of web"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_comes_in_the_middle_is_noticed() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut guard = stage.redirect("a").await.unwrap();
    // One that is nobody's trouble.
    add(
        &stage,
        "other",
        json!({"podSelector": {"matchLabels": {"app": "other"}}}),
    )
    .await;
    let quiet = tokio::time::timeout(Duration::from_secs(1), guard.changed()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let began = std::time::Instant::now();
    deny_all_but_callers(&stage).await;
    let change = next(&mut guard).await;
    let Change::CutOff(why) = change else {
        panic!("{change:?}")
    };
    assert!(
        why.contains("NetworkPolicy deny") && why.contains("--network-policy on"),
        "{why}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_cut_off_from_ready_pods_is_noticed() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let mut guard = stage.redirect("a").await.unwrap();
    let landing = guard.landings()[0].landing;
    let quiet = async |guard: &mut Guard, stage: &Stage, set: &dyn Fn(&mut Answers)| {
        stage.answers(set);
        guard.doubt(landing);
        let news = tokio::time::timeout(Duration::from_secs(6), guard.changed()).await;
        assert!(news.is_err(), "{news:?}");
    };
    // It works again, or nobody listens: an app that is down.
    quiet(&mut guard, &stage, &|_| {}).await;
    quiet(&mut guard, &stage, &|answers| {
        answers.pods = Some(REFUSED);
        answers.listens = Some(REFUSED);
    })
    .await;
    // No pod can be asked, and the relay is refused: it may be either.
    quiet(&mut guard, &stage, &|answers| {
        answers.listens = Some(timed_out());
    })
    .await;
    // The pods listen, and the relay is refused.
    let began = std::time::Instant::now();
    stage.answers(|answers| answers.listens = None);
    guard.doubt(landing);
    let change = next(&mut guard).await;
    let Change::CutOff(why) = change else {
        panic!("{change:?}")
    };
    assert!(
        why.contains("does not reach port http (80) of web any more"),
        "{why}"
    );
    assert!(why.contains("2 of its pods are ready"), "{why}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // Where it was not asked for, a port is not looked at.
    guard.doubt(landing + 2);
    let news = tokio::time::timeout(Duration::from_secs(5), guard.changed()).await;
    assert!(news.is_err(), "{news:?}");
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_given_back_to_serve_callers_is_not_taken_again_by_others() {
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    let before = stage.as_it_is("web");
    let mut first = stage.redirect("a").await.unwrap();
    let mut second = stage.redirect("b").await.unwrap();
    stage.answers(|answers| answers.pods = Some(REFUSED));
    first.doubt(first.landings()[0].landing);
    assert!(matches!(next(&mut first).await, Change::CutOff(_)));
    assert_eq!(first.release().await.unwrap(), Left::Others(1));
    let behind = stage.behind("web");
    assert!(
        behind.iter().all(|(pod, _)| pod.starts_with("web-")),
        "{behind:?}"
    );
    // The other one sees that, and tries before it takes it.
    let change = next(&mut second).await;
    assert!(matches!(change, Change::Drifted(_)), "{change:?}");
    let refused = second.again().await.unwrap_err();
    assert!(
        matches!(refused, RedirectError::Unreachable { .. }),
        "{refused}"
    );
    assert_eq!(stage.behind("web"), behind);
    assert_eq!(second.restore().await.unwrap(), Left::Last);
    assert_eq!(stage.as_it_is("web"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_cannot_be_read_are_mentioned() {
    const SAID: &str = "network policies that you may not read";
    let stage = Stage::set_up().await;
    stage.apply(&stage.manifest()).await.unwrap();
    // `edit` in one namespace.
    stage.redirect("a").await.unwrap().restore().await.unwrap();
    let said = stage.said.lock().unwrap().join("\n");
    assert_eq!(said.matches(SAID).count(), 1, "{said}");
    stage.said.lock().unwrap().clear();
    let everywhere = Rule::new(&["list"], &["networkpolicies", "namespaces"]);
    let rules = [Rule::edit("shop"), vec![everywhere]].concat();
    let user = User::new("reader").rules(rules);
    let reader = stage.world.client_with(user, "reader").await;
    let redirector = stage.redirector_as(&reader);
    let guard = redirector.redirect(stage.wanted("b")).await;
    guard.unwrap().restore().await.unwrap();
    let said = stage.said.lock().unwrap().join("\n");
    assert!(!said.contains(SAID), "{said}");
}
