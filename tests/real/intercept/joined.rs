//! A colleague who may intercept, too, and has read the id of somebody's session.

use std::time::Duration;

use kdev::tunnel::SessionId;
use serde_json::Value;

use super::app::App;
use super::call;
use super::session::{Intercept, LAG};
use crate::peer::Peer;
use crate::site::SECRETS;
use crate::team::Team;
use crate::thief::{self, Shows};

/// How long kdev may take to say so.
const NOTED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab"]
async fn who_knows_key_and_id_joins_no_session_and_its_owner_is_told() {
    let team = Team::set_up("joined", true);
    let orders = team.address("orders");
    let ann = App::of("ann");
    let live = Intercept::live(&team, &ann, &["orders:http", "--header", "x-user: ann"]);
    std::thread::sleep(LAG);
    let mine = || {
        for _ in 0..20 {
            assert_eq!(call(&orders, &["-H", "x-user: ann"]), ann.name);
        }
    };
    mine();

    // All that stands in the cluster for whoever may read Services.
    let site = &team.place.site;
    let of = ["get", "services", "-l", "kdev.dev/origin-of=orders", "-o"];
    let path = r"jsonpath={.items[0].metadata.annotations.kdev\.dev/claims}";
    let claims = site.kubectl(&[&of[..], &[path]].concat()).unwrap();
    let claims: Vec<Value> = serde_json::from_str(&claims).unwrap();
    let session: SessionId = serde_json::from_value(claims[0]["session"].clone()).unwrap();

    let bob = Peer::connect(team.place.account.kubeconfig(), &site.0).await;
    let key = bob.key(SECRETS[1]).await.unwrap();
    let relays = site.await_relays(2);
    let steal = async |relays: &[String]| {
        for pod in relays {
            for shows in [Shows::Nothing, Shows::OwnKey] {
                let told = thief::join(bob.dial(pod).await, &key, session, shows).await;
                assert!(told.contains("code: session"), "{pod} {shows:?}: {told}");
            }
        }
    };
    steal(&relays).await;
    live.notes("wanted to join this session", NOTED);
    mine();

    // New replicas know nothing of the session, and the owner has to come back to them.
    site.kubectl(&["delete", "pod", &relays[0], "--wait=false"])
        .unwrap();
    let fresh = site.await_relays_that(|now| now.len() == 2 && !now.contains(&relays[0]));
    for _ in 0..5 {
        steal(&fresh).await;
    }
    mine();
    live.end();
    bob.close().await;
}
