//! Many claims of one session beside that of `kdev intercept`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use kdev::addr::Target;
use kdev::intercept::reverse::{Reverse, Standing};
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::{Client, KubeOptions, relay};
use kdev::rule::{AppProtocol, Claim, Condition, Conditions};
use kdev::task::Tasks;

use super::stage::NAMESPACE;

/// How long the tunnels may take to come.
const TUNNELS: Duration = Duration::from_secs(15);
/// How long saying goodbye to the relay may take, as with `kdev list`.
const GOODBYE: Duration = Duration::from_millis(300);
/// Claims of each team: what a request's team leads to, which is then looked at one by one, is a
/// tenth of all.
const TEAMS: usize = 10;

/// The claims; without a [`Rules::close`] the relay thinks that their owner sleeps.
pub(crate) struct Rules {
    reverse: Reverse,
    pods: PortForward,
    _tasks: Tasks,
}

impl Rules {
    /// Registers as many claims on `port` as make `conditions` together with the one of `kdev
    /// intercept`: two each, and a third one where they are odd.
    pub(crate) async fn register(
        kubeconfig: &Path,
        port: u16,
        app: SocketAddr,
        conditions: usize,
    ) -> Self {
        let tasks = Tasks::new();
        let options = KubeOptions {
            kubeconfig: Some(kubeconfig.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..KubeOptions::default()
        };
        let client = Client::connect(options, &tasks).await.unwrap();
        let pods = PortForward::new(client.clone(), KnownForm::default());
        let reverse = relay::reverse_at(&client, &pods, NAMESPACE).await.unwrap();
        let reverse = reverse.expect("a relay");
        reverse.ready(TUNNELS).await.unwrap();
        let others = conditions - 1;
        for number in 0..others / 2 {
            let mut when = vec![
                Condition::header(&format!("x-user: user-{number}")),
                Condition::header(&format!("x-team: team-{}", number % TEAMS)),
            ];
            if number == 0 && others % 2 == 1 {
                when.push(Condition::header("x-feature: search"));
            }
            let when = when.into_iter().map(Result::unwrap).collect();
            let standing = Standing {
                port,
                claim: Claim {
                    id: format!("other-{number}"),
                    owner: "somebody else".to_owned(),
                    session: reverse.session(),
                    conditions: Conditions::new(when).unwrap(),
                    since: 1 + number as u64,
                    mirror: false,
                    fallback: false,
                    strict: false,
                    protocol: AppProtocol::Auto,
                },
                app: Target::parse(&app.to_string(), None).unwrap(),
                log: false,
            };
            reverse.attach(standing, None).await.unwrap();
        }
        Self {
            reverse,
            pods,
            _tasks: tasks,
        }
    }

    pub(crate) async fn close(self) {
        self.reverse.close(GOODBYE).await;
        self.pods.close(GOODBYE).await;
    }
}
