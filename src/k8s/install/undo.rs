//! Taking back what a run has made, and nothing that was there before it.

use std::time::Duration;

use serde_json::Value;

use super::NAME;
use super::change::{Action, Done};
use super::site::{DEPLOYMENTS, Kind, Site};
use crate::k8s::ClientError;

/// How long the pods of a Deployment that goes may take to end.
pub(super) const END_LIMIT: Duration = Duration::from_secs(45);

/// An object that this run has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its name.
    pub name: String,
    /// Tells it from another one of the name.
    pub uid: String,
}

impl Made {
    pub(super) fn of(kind: &'static Kind, object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self {
            kind,
            name: text("name").to_owned(),
            uid: text("uid").to_owned(),
        }
    }

    /// Kind and name.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} {}", self.kind.kind, self.name)
    }
}

impl Site {
    /// Deletes what is in `made`, the last one first. Gives those that stay, each with why.
    pub async fn take_back(
        &self,
        made: &[Made],
        done: &mut (dyn FnMut(Done) + Send),
    ) -> Vec<(String, String)> {
        let mut left = Vec::new();
        let own = |deployment: &Value| made.iter().any(|m| deployment["metadata"]["uid"] == *m.uid);
        match self.object(&DEPLOYMENTS, NAME).await {
            // Its pods need the rest.
            Ok(Some(deployment)) if !own(&deployment) => {
                let why = "the Deployment that is there now is not of this run";
                return all_left(made, why);
            }
            Err(error) => return all_left(made, &error.to_string()),
            Ok(_) => {}
        }
        for object in made.iter().rev() {
            let foreground = *object.kind == DEPLOYMENTS;
            let how = if foreground {
                "Foreground"
            } else {
                "Background"
            };
            let deleted = self
                .delete_as(object.kind, &object.name, how, Some(&object.uid))
                .await;
            match deleted {
                Ok(()) => {
                    if foreground {
                        let until = tokio::time::Instant::now() + END_LIMIT;
                        // Pods that are left end by themselves: nothing keeps them any more.
                        let _ = self.gone(until, END_LIMIT).await;
                    }
                    done(Done {
                        kind: object.kind.kind,
                        name: object.name.clone(),
                        action: Action::Deleted,
                    });
                }
                // Somebody deleted it, and made another one.
                Err(ClientError::Status { code: 409, .. }) => {}
                Err(error) => {
                    left.push((object.shown(), error.to_string()));
                    if foreground {
                        // Its pods read the rest.
                        let why = "the Deployment stays";
                        let rest = made.iter().rev().filter(|other| *other != object);
                        left.extend(rest.map(|other| (other.shown(), why.to_owned())));
                        return left;
                    }
                }
            }
        }
        left
    }
}

fn all_left(made: &[Made], why: &str) -> Vec<(String, String)> {
    let all = made.iter();
    all.map(|object| (object.shown(), why.to_owned())).collect()
}
