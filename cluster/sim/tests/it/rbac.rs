//! Who may do what, and how the server says no.

use kdev_sim::{Options, Rule, User};
use serde_json::json;

use crate::support::http::{Answer, ask, get};
use crate::support::{shop, shop_with};

#[tokio::test]
async fn unknown_and_revoked_tokens_are_unauthorized_and_none_is_anonymous() {
    let cluster = shop().await;
    let path = "/api/v1/namespaces/shop/pods";
    let unauthorized = get(&cluster, "bogus", path).await;
    assert_eq!(unauthorized.code, 401);
    assert_eq!(
        unauthorized.json(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Unauthorized", "reason": "Unauthorized", "code": 401})
    );
    assert_eq!(
        get(&cluster, "", path).await.message(),
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \
         \"\" in the namespace \"shop\""
    );
    assert_eq!(get(&cluster, "dev-token", path).await.code, 200);
    cluster.revoke_token("dev-token");
    assert_eq!(get(&cluster, "dev-token", path).await.code, 401);
}

#[tokio::test]
async fn denials_name_verb_resource_and_place() {
    let cluster = shop().await;
    for (path, message) in [
        (
            "/api/v1/pods",
            "pods is forbidden: User \"dev\" cannot list resource \"pods\" in API group \"\" at \
             the cluster scope",
        ),
        (
            "/api/v1/namespaces/other",
            "namespaces \"other\" is forbidden: User \"dev\" cannot get resource \"namespaces\" \
             in API group \"\" in the namespace \"other\"",
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/other/endpointslices?watch=true",
            "endpointslices.discovery.k8s.io is forbidden: User \"dev\" cannot watch resource \
             \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"other\"",
        ),
        (
            "/api/v1/namespaces/shop/nopes",
            "nopes is forbidden: User \"dev\" cannot list resource \"nopes\" in API group \"\" in \
             the namespace \"shop\"",
        ),
    ] {
        let answer = get(&cluster, "dev-token", path).await;
        assert_eq!((answer.code, answer.message().as_str()), (403, message));
        assert_eq!(answer.json()["reason"], "Forbidden");
    }
    let nopes = get(&cluster, "admin-token", "/api/v1/namespaces/shop/nopes").await;
    assert_eq!(
        (nopes.code, nopes.body.as_str()),
        (404, "404 page not found\n")
    );
}

async fn review(
    cluster: &kdev_sim::SimCluster,
    token: &str,
    attributes: serde_json::Value,
) -> Answer {
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let body = json!({"spec": {"resourceAttributes": attributes}}).to_string();
    ask(
        cluster,
        token,
        line,
        &[("Content-Type", "application/json")],
        &body,
    )
    .await
}

#[tokio::test]
async fn access_reviews_answer_for_the_token() {
    let cluster = shop().await;
    let forward = |namespace| {
        json!({"namespace": namespace, "verb": "create", "resource": "pods",
            "subresource": "portforward"})
    };
    for (token, namespace, allowed) in [
        ("dev-token", "shop", true),
        ("dev-token", "other", false),
        ("viewer-token", "shop", false),
        ("admin-token", "other", true),
    ] {
        let answer = review(&cluster, token, forward(namespace)).await;
        assert_eq!(answer.code, 201);
        assert_eq!(
            answer.json()["status"]["allowed"],
            allowed,
            "{token} {namespace}"
        );
    }
    cluster.set_rules("dev", Rule::view("shop"));
    let answer = review(&cluster, "dev-token", forward("shop")).await;
    assert_eq!(answer.json()["status"]["allowed"], false);

    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(
        ask(&cluster, "dev-token", line, &[], "{\"spec\":{}}")
            .await
            .code,
        422
    );
    assert_eq!(ask(&cluster, "dev-token", line, &[], "{").await.code, 400);
}

#[tokio::test]
async fn rules_reviews_list_the_rules_of_the_namespace() {
    let cluster = shop().await;
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let body = json!({"spec": {"namespace": "shop"}}).to_string();
    let answer = ask(&cluster, "viewer-token", line, &[], &body).await.json();
    let rules = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["resources"][0] == "pods"));
    assert!(
        !rules
            .iter()
            .any(|rule| rule["resources"].to_string().contains("portforward"))
    );
    assert_eq!(answer["status"]["incomplete"], false);
}

#[tokio::test]
async fn a_token_learns_who_it_stands_for_where_the_server_knows_the_question() {
    let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let cluster = shop().await;
    let answer = ask(&cluster, "dev-token", line, &[], "{}").await.json();
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "dev");
    assert_eq!(
        user["groups"],
        json!(["developers", "system:authenticated"])
    );
    let cluster = shop_with(Options::old()).await;
    assert_ne!(ask(&cluster, "dev-token", line, &[], "{}").await.code, 201);
}

#[tokio::test]
async fn impersonation_needs_the_right_and_takes_the_others_rules() {
    let pods = "GET /api/v1/namespaces/shop/pods";
    let as_viewer = [("Impersonate-User", "viewer")];
    let cluster = shop_with(Options::old()).await;
    let denied = ask(&cluster, "dev-token", pods, &as_viewer, "").await;
    assert_eq!(
        denied.message(),
        "users \"viewer\" is forbidden: User \"dev\" cannot impersonate resource \"users\" in API \
         group \"\" at the cluster scope"
    );
    let account = [("Impersonate-User", "system:serviceaccount:a:bob")];
    assert!(
        ask(&cluster, "dev-token", pods, &account, "")
            .await
            .message()
            .starts_with("serviceaccounts \"bob\" is forbidden")
    );
    let cluster = shop().await;
    assert_eq!(
        ask(&cluster, "admin-token", pods, &as_viewer, "")
            .await
            .code,
        200
    );
    let forward = "POST /api/v1/namespaces/shop/pods/web-1/portforward";
    let as_viewer = ask(&cluster, "admin-token", forward, &as_viewer, "").await;
    assert!(
        as_viewer
            .message()
            .contains("User \"viewer\" cannot create")
    );
    let group = ask(
        &cluster,
        "admin-token",
        pods,
        &[("Impersonate-Group", "g")],
        "",
    )
    .await;
    assert_eq!(group.code, 500);
}

#[tokio::test]
async fn constrained_impersonation_is_for_one_identity_and_some_actions() {
    let cluster = shop().await;
    let identity = Rule::new(&["impersonate:user-info"], &["users"])
        .groups(&["authentication.k8s.io"])
        .names(&["viewer"]);
    let action = Rule::new(&["impersonate-on:user-info:list"], &["pods"]).namespace("shop");
    cluster.add_user(User::new("actor").rule(identity).rule(action));
    let code = async |path: &str, user: &str| {
        let line = format!("GET {path}");
        ask(
            &cluster,
            "actor-token",
            &line,
            &[("Impersonate-User", user)],
            "",
        )
        .await
        .code
    };
    let pods = "/api/v1/namespaces/shop/pods";
    assert_eq!(code(pods, "viewer").await, 200);
    assert_eq!(code(pods, "dev").await, 403, "another identity");
    assert_eq!(
        code(&format!("{pods}/web-1"), "viewer").await,
        403,
        "another verb"
    );
    assert_eq!(code("/version", "viewer").await, 403, "no resource");
    let own = get(&cluster, "actor-token", pods).await;
    assert_eq!(own.code, 403, "not in its own name");
    let message = async |line: &str, user: &str| {
        let headers = [("Impersonate-User", user)];
        let answer = ask(&cluster, "actor-token", line, &headers, "").await;
        answer.message()
    };
    let version = message("GET /version", "viewer").await;
    assert_eq!(
        version,
        "forbidden: User \"actor\" cannot impersonate-on:user-info:get path \"/version\""
    );
    let line = format!("GET {pods}");
    assert_eq!(
        message(&line, "dev").await,
        "users.authentication.k8s.io \"dev\" is forbidden: User \"actor\" cannot \
         impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the \
         cluster scope"
    );
    assert_eq!(
        message(&line, "system:serviceaccount:a:bob").await,
        "pods is forbidden: User \"actor\" cannot impersonate-on:serviceaccount:list resource \
         \"pods\" in API group \"\" in the namespace \"shop\""
    );
}

#[tokio::test]
async fn rules_may_be_bound_to_names() {
    let cluster = shop().await;
    let one = Rule::new(&["get", "list", "watch"], &["pods"])
        .namespace("shop")
        .names(&["web-1"]);
    cluster.add_user(User::new("narrow").rule(one));
    let code = async |path: &str| get(&cluster, "narrow-token", path).await.code;
    assert_eq!(code("/api/v1/namespaces/shop/pods/web-1").await, 200);
    assert_eq!(code("/api/v1/namespaces/shop/pods/web-2").await, 403);
    assert_eq!(code("/api/v1/namespaces/shop/pods").await, 403);
    // A list of one name is authorised as that name.
    assert_eq!(
        code("/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dweb-1").await,
        200
    );
}
