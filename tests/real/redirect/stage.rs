//! A team's namespace, and kdev's hands on its Services.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use kdev::intercept::{Claim, Judge, OnRecord, Verdict, Wanted};
use kdev::k8s::portforward::{KnownForm, PortForward};
use kdev::k8s::redirect::list::Scope;
use kdev::k8s::redirect::sweep::{Last, clear};
use kdev::k8s::redirect::{Redirector, through_tunnels};
use kdev::k8s::{Client, KubeOptions};
use kdev::task::Tasks;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::team::Team;

/// A team, and its editor's way to the cluster.
pub(super) struct Stage {
    team: Team,
    pub(super) client: Client,
    pods: PortForward,
    pub(super) tasks: Tasks,
}

impl Deref for Stage {
    type Target = Team;

    fn deref(&self) -> &Team {
        &self.team
    }
}

impl Stage {
    /// With the Services put there on the server's side, or as `kubectl apply` does by itself.
    pub(super) async fn set_up(what: &str, server_side: bool) -> Self {
        let team = Team::set_up(what, server_side);
        let tasks = Tasks::new();
        let options = KubeOptions {
            kubeconfig: Some(team.place.account.kubeconfig()),
            ..KubeOptions::default()
        };
        let client = Client::connect(options, &tasks).await.unwrap();
        let pods = PortForward::new(client.clone(), KnownForm::default());
        Self {
            team,
            client,
            pods,
            tasks,
        }
    }

    /// As one more kdev.
    pub(super) fn redirector(&self) -> Redirector {
        let namespace = &self.place.site.0;
        let ask = through_tunnels(&self.client, &self.pods, namespace);
        Redirector::new(&self.client, namespace, ask, &self.tasks)
    }

    /// Clears away what is for late callers, as where none can come any more.
    pub(super) async fn clear(&self) {
        let scope = Scope::Namespace(self.place.site.0.clone());
        let none = Last::NoRelay;
        let cleared = clear(&self.client, &scope, &|_| true, &none, Duration::ZERO);
        assert!(cleared.await.unwrap().is_empty());
    }

    pub(super) async fn close(self) {
        self.pods.close(Duration::from_secs(1)).await;
        self.tasks.shutdown(Duration::from_secs(1)).await;
    }
}

/// A claim that gets along with all others.
pub(super) fn wanted(service: &str, id: &str) -> Wanted {
    judged(service, id, Arc::new(|_, _| Verdict::Admitted))
}

/// A claim that gets along with nobody.
pub(super) fn alone(service: &str, id: &str) -> Wanted {
    let judge: Judge = Arc::new(|others, _| match others.first() {
        None => Verdict::Admitted,
        Some(other) => Verdict::Conflict(format!("{} has it", other.owner)),
    });
    judged(service, id, judge)
}

fn judged(service: &str, id: &str, judge: Judge) -> Wanted {
    let claim: Claim =
        serde_json::from_value(json!({"id": id, "owner": format!("owner of {id}")})).unwrap();
    Wanted {
        service: service.to_owned(),
        port: 80,
        say: Arc::new(|_| {}),
        claim,
        judge,
        force: false,
        on_record: OnRecord::default(),
        told_to_end: CancellationToken::new(),
    }
}
