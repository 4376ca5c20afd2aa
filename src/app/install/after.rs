//! What becomes of what a run has made when a later step fails.

use super::{Event, Plan, Progressed, Request};
use crate::k8s::install::change::Action;
use crate::k8s::install::site::{DEPLOYMENTS, InstallError};
use crate::k8s::install::undo::Made;

type Tell<'a> = dyn FnMut(Event<'_>) + Send + 'a;

impl Plan {
    /// Takes back what this run has made, where that leaves the namespace as it was; says what stays.
    pub(super) async fn after(
        &self,
        error: &InstallError,
        so_far: &Progressed,
        request: &Request,
        tell: &mut Tell<'_>,
    ) {
        let touched = |done: &&crate::k8s::install::change::Done| {
            done.kind == DEPLOYMENTS.kind && done.action == Action::Changed
        };
        if so_far.all.iter().any(|done| touched(&done)) {
            return self.say_what_stays(
                "the Deployment was there before and stays as it was changed, its ready pods too",
                so_far,
                tell,
            );
        }
        if request.keep {
            return self.say_what_stays("--keep was given", so_far, tell);
        }
        if matches!(error, InstallError::TimedOut { .. }) {
            // Waiting may still help: a cluster that grows takes minutes for a node.
            return self.say_what_stays("the pods may still come", so_far, tell);
        }
        let made = &so_far.made;
        if made.is_empty() {
            return;
        }
        let all: Vec<String> = made.iter().map(Made::shown).collect();
        tell(Event::Note(format!(
            "what this run has made is taken back: {}",
            all.join(", ")
        )));
        let left = self
            .site
            .take_back(made, &mut |done| tell(Event::Object(&done)))
            .await;
        for (object, why) in left {
            tell(Event::Note(format!(
                "{object} stays in namespace {}: {why}",
                self.site.namespace
            )));
        }
    }

    /// Names what this run has made and changed, and does nothing about it.
    pub(super) fn say_what_stays(&self, why: &str, so_far: &Progressed, tell: &mut Tell<'_>) {
        let changed = so_far.all.iter();
        let changed = changed.filter(|done| done.action == Action::Changed);
        let changed = changed.map(|done| format!("{} {}", done.kind, done.name));
        let perhaps = so_far.unanswered.iter();
        let perhaps = perhaps.map(|object| format!("perhaps {object}"));
        let made = so_far.made.iter().map(Made::shown);
        let all: Vec<String> = made.chain(changed).chain(perhaps).collect();
        if !all.is_empty() {
            let namespace = &self.site.namespace;
            tell(Event::Note(format!(
                "{why}; left in namespace {namespace}: {}. The same command goes on from there, and \
                 `kdev uninstall -n {namespace}` removes it",
                all.join(", ")
            )));
        }
    }
}
