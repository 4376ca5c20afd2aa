//! Discovery, getting and listing.

use kdev_sim::Options;
use serde_json::json;

use crate::support::http::{ask, get};
use crate::support::{shop, shop_with};

#[tokio::test]
async fn discovery_names_what_is_served() {
    let cluster = shop().await;
    assert_eq!(get(&cluster, "", "/healthz").await.body, "ok");
    assert_eq!(
        get(&cluster, "", "/version").await.json()["gitVersion"],
        "v1.37.2"
    );
    assert_eq!(get(&cluster, "", "/api").await.code, 403);
    assert_eq!(
        get(&cluster, "dev-token", "/api").await.json()["versions"],
        json!(["v1"])
    );
    let groups = get(&cluster, "dev-token", "/apis").await.json();
    let names: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert_eq!(
        names,
        [
            "apps",
            "networking.k8s.io",
            "policy",
            "discovery.k8s.io",
            "authorization.k8s.io",
            "authentication.k8s.io"
        ]
    );
    let core = get(&cluster, "dev-token", "/api/v1").await.json();
    let resources = core["resources"].as_array().unwrap();
    let forward = resources
        .iter()
        .find(|r| r["name"] == "pods/portforward")
        .unwrap();
    assert_eq!(forward["verbs"], json!(["create", "get"]));
    assert_eq!(
        get(&cluster, "dev-token", "/apis/nope").await.body,
        "404 page not found\n"
    );
    assert_eq!(
        get(&cluster, "dev-token", "/nope").await.message(),
        "forbidden: User \"dev\" cannot get path \"/nope\""
    );
}

#[tokio::test]
async fn an_old_server_knows_slices_by_their_beta_version_alone() {
    let cluster = shop_with(Options::old()).await;
    let group = get(&cluster, "dev-token", "/apis/discovery.k8s.io")
        .await
        .json();
    assert_eq!(group["preferredVersion"]["version"], "v1beta1");
    let path = |version| format!("/apis/discovery.k8s.io/{version}/namespaces/shop/endpointslices");
    assert_eq!(
        get(&cluster, "dev-token", &path("v1")).await.body,
        "404 page not found\n"
    );
    let slices = get(&cluster, "dev-token", &path("v1beta1")).await.json();
    assert_eq!(slices["apiVersion"], "discovery.k8s.io/v1beta1");
    let items = slices["items"].as_array().unwrap();
    let web = items
        .iter()
        .find(|s| s["metadata"]["generateName"] == "web-")
        .unwrap();
    assert_eq!(
        web["endpoints"][0]["topology"]["kubernetes.io/hostname"],
        "sim-node"
    );
    let peers: Vec<_> = items
        .iter()
        .filter(|s| s["metadata"]["generateName"] == "peers-")
        .collect();
    assert_eq!(peers.len(), 2, "headless Services have an empty IPv6 slice");
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let cluster = shop().await;
    let names = async |query: &str| -> Vec<String> {
        let path = format!("/api/v1/namespaces/shop/pods?{query}");
        let list = get(&cluster, "dev-token", &path).await.json();
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names("labelSelector=app%3Dweb").await,
        ["web-1", "web-2", "web-3"]
    );
    assert_eq!(
        names("labelSelector=app+in+(echo,redis)").await,
        ["echo-1", "redis-0"]
    );
    assert_eq!(
        names("fieldSelector=metadata.name%3Dweb-2").await,
        ["web-2"]
    );
    assert_eq!(
        names("fieldSelector=status.phase%21%3DRunning").await,
        [""; 0]
    );

    let first = get(
        &cluster,
        "dev-token",
        "/api/v1/namespaces/shop/pods?limit=4",
    )
    .await
    .json();
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = names(&format!("limit=4&continue={token}")).await;
    assert_eq!(rest, ["web-1", "web-2", "web-3"]);
    assert_eq!(
        names("limit=4&resourceVersion=0").await.len(),
        7,
        "the cache knows no pages"
    );

    cluster.expire_watches();
    let path = format!("/api/v1/namespaces/shop/pods?limit=4&continue={token}");
    let gone = get(&cluster, "dev-token", &path).await;
    assert_eq!(
        (gone.code, gone.json()["reason"].clone()),
        (410, json!("Expired"))
    );
}

#[tokio::test]
async fn bad_queries_are_refused_in_the_real_servers_words() {
    let cluster = shop().await;
    for (query, code, message) in [
        (
            "resourceVersion=abc",
            500,
            "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: \
            parsing \"abc\": invalid syntax",
        ),
        (
            "labelSelector=%21",
            400,
            "unable to parse requirement: found '', expected: identifier",
        ),
        (
            "fieldSelector=abc",
            400,
            "invalid selector: 'abc'; can't understand 'abc'",
        ),
        (
            "fieldSelector=foo%3Da",
            400,
            "field label not supported: foo",
        ),
        (
            "limit=abc",
            400,
            "strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "continue=abc",
            400,
            "invalid continue token: continue key is not valid",
        ),
        ("resourceVersion=1&resourceVersionMatch=Exact", 200, ""),
    ] {
        let path = format!("/api/v1/namespaces/shop/pods?{query}");
        let answer = get(&cluster, "dev-token", &path).await;
        assert_eq!(
            (answer.code, answer.message().as_str()),
            (code, message),
            "{query}"
        );
    }
    let future = get(
        &cluster,
        "dev-token",
        "/api/v1/namespaces/shop/pods?resourceVersion=99999",
    );
    assert!(
        future
            .await
            .message()
            .starts_with("Timeout: Too large resource version: 99999")
    );
    cluster.expire_watches();
    let path = "/api/v1/namespaces/shop/pods?resourceVersion=1&resourceVersionMatch=Exact";
    let old = get(&cluster, "dev-token", path).await;
    assert_eq!(
        old.message(),
        "The resourceVersion for the provided list is too old."
    );
}

#[tokio::test]
async fn endpoints_come_with_a_warning_today_and_without_one_before() {
    for (options, warned) in [(Options::default(), true), (Options::old(), false)] {
        let cluster = shop_with(options).await;
        let answer = get(
            &cluster,
            "dev-token",
            "/api/v1/namespaces/shop/endpoints/web",
        )
        .await;
        assert_eq!(answer.header("Warning").is_some(), warned);
    }
}

#[tokio::test]
async fn requests_are_counted_by_verb_and_resource() {
    let cluster = shop().await;
    get(&cluster, "dev-token", "/api/v1/namespaces/shop/pods").await;
    get(&cluster, "dev-token", "/api/v1/namespaces/shop/pods/web-1").await;
    get(
        &cluster,
        "viewer-token",
        "/api/v1/namespaces/shop/pods/web-1/portforward",
    )
    .await;
    ask(
        &cluster,
        "dev-token",
        "DELETE /api/v1/namespaces/shop/pods/web-1",
        &[],
        "",
    )
    .await;
    let counts = cluster.counts();
    assert_eq!(counts.of("list", "pods"), 1);
    assert_eq!(counts.of("get", "pods"), 1);
    assert_eq!(counts.of("get", "pods/portforward"), 1);
    assert_eq!(counts.of("delete", "pods"), 1);
    assert_eq!(counts.of("watch", "pods"), 0);
    assert_eq!(counts.total(), 4);
    assert_eq!(counts.connections, 4);
}
