//! Accounts that lack one verb: each works all the same, or the error names what is missing.

use crate::app::Way;
use crate::lab;
use crate::program::{Running, finish, kdev, run};

/// What becomes of an account.
enum Outcome {
    Works,
    /// The error names this verb on this resource.
    Names(&'static str, &'static str),
}

/// Each account that lacks one of the eight verbs, and what that means.
fn accounts() -> [(&'static str, Outcome); 8] {
    use Outcome::{Names, Works};
    [
        // Asked for one by one or as a list, whichever is allowed.
        ("dev-no-get-pods", Works),
        ("dev-no-list-pods", Names("list", "pods")),
        ("dev-no-watch-pods", Works),
        ("dev-no-get-services", Works),
        ("dev-no-list-services", Works),
        ("dev-no-watch-services", Works),
        // A port-forward is made by POST (create) or GET (get), whichever is allowed...
        ("dev-no-get-portforward", Works),
        (
            "dev-no-create-portforward",
            // ... but servers of today ask for `create` on both.
            if lab::asks_for_create() {
                Names("create", "pods/portforward")
            } else {
                Works
            },
        ),
    ]
}

#[test]
#[ignore = "needs the lab"]
fn a_missing_verb_hurts_nothing_or_is_named() {
    let pods = lab::ready_pods("web");
    for (account, outcome) in accounts() {
        for host in ["web.shop", "web", "web.shop.svc.cluster.local"] {
            let url = format!("http://{host}/");
            let done = run(account, &["curl", "-sS", "-m", "20", &url]);
            match outcome {
                Outcome::Works => {
                    let pod = done.out.trim();
                    assert!(pods.iter().any(|p| p == pod), "{account}: {done:?}");
                }
                Outcome::Names(verb, resource) => {
                    let named = format!("not allowed to {verb} {resource} in namespace shop");
                    assert!(done.out.contains(&named), "{account} {host}: {done:?}");
                    let advice = format!("ask for the verb {verb:?} on {resource}");
                    assert!(done.out.contains(&advice), "{account} {host}: {done:?}");
                    println!("{account} {host}: {}", done.out.trim());
                }
            }
        }
    }
}

#[test]
#[ignore = "needs the lab"]
fn what_one_may_not_see_is_said() {
    // Surely the cluster's, so the cluster's refusal is the answer.
    let done = run("dev", &["curl", "-sS", "-m", "20", "http://web.other.svc/"]);
    let named = "not allowed to get services in namespace other";
    assert!(done.out.contains(named), "{done:?}");
    let done = run(
        "nobody",
        &["curl", "-sS", "-m", "20", "http://web.shop.svc/"],
    );
    let named = "not allowed to get services in namespace shop";
    assert!(done.out.contains(named), "{done:?}");
    // Perhaps a host of the laptop's network: dialled there, and the message has both.
    let done = run("dev", &["curl", "-sS", "-m", "20", "http://web.other/"]);
    assert!(
        done.out.contains("neither a Service that you may see"),
        "{done:?}"
    );
}

/// A right that every look-up needs is missed at the start; one that only a dial needs shows later,
/// and then on the terminal, since a local port has no words for its app.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn forward_names_the_missing_verb_where_its_user_looks() {
    for (account, outcome) in accounts() {
        let said = match outcome {
            Outcome::Names(_, "pods") => {
                let mut command = kdev(account);
                let done = finish(command.args(["forward", "web.shop:80=0"]), b"");
                assert_eq!(done.code, 1, "{account}: {done:?}");
                done.err
            }
            _ => {
                let port = Running::forward(account, &["web.shop:80"]);
                let answer = Way::Port(port.port(0)).get("web.shop:80", "/").await;
                match outcome {
                    Outcome::Works => {
                        assert_eq!(answer.unwrap().status, 200, "{account}");
                    }
                    Outcome::Names(..) => drop(answer.unwrap_err()),
                }
                port.stop()
            }
        };
        if let Outcome::Names(verb, resource) = outcome {
            let named = format!("not allowed to {verb} {resource} in namespace shop");
            assert!(said.contains(&named), "{account}: {said}");
        }
    }
}
