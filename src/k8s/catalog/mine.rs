//! Which Services are intercepted with `--mine`, and by whom. The watch of Services brings it: it
//! costs no request.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Catalog;
use super::object::RawService;
use super::store::{Service, Store};
use super::texts::Texts;
use crate::addr::Namespaced;
use crate::intercept::{Claim, record};
use crate::k8s::redirect::marks::INTERCEPTED;

/// What a Service says of intercepts.
#[derive(Debug, Default)]
pub(super) struct Intercepts {
    /// Of an intercepted Service, the one that leads to its original pods, and since when it is known
    /// to be intercepted.
    origin: Option<(Arc<str>, Instant)>,
    /// Of the one that leads to the original pods, the ports and values of claims with `--mine`.
    mine: Box<[(u16, Box<str>)]>,
}

impl Intercepts {
    /// Those of a Service in its new form.
    pub(super) fn new(raw: &RawService, texts: &mut Texts) -> Self {
        let label = raw.metadata.labels.get(INTERCEPTED);
        let origin = label.and_then(|value| value.split('.').next());
        // Claims that cannot be read are a newer kdev's, whose requests nobody here knows.
        let claims: Vec<Claim> = match raw.metadata.annotations.claims.as_str() {
            "" => Vec::new(),
            text => serde_json::from_str(text).unwrap_or_default(),
        };
        let mine = claims.iter().filter_map(record::mine);
        Self {
            origin: origin.map(|origin| (texts.get(origin), Instant::now())),
            mine: mine.map(|(port, value)| (port, value.into())).collect(),
        }
    }

    /// Takes over since when a Service is intercepted from what was known before.
    pub(super) fn follow(&mut self, before: &Self) {
        if let (Some((_, since)), Some((_, earlier))) = (&mut self.origin, &before.origin) {
            *since = *earlier;
        }
    }
}

/// How many claims there are, by the value of `--mine`.
#[derive(Debug, Default)]
pub(super) struct Values(HashMap<Box<str>, usize>);

impl Values {
    /// Counts those of a Service.
    pub(super) fn add(&mut self, service: &Service) {
        for (_, value) in &service.intercepts.mine {
            *self.0.entry(value.clone()).or_default() += 1;
        }
    }

    /// Counts them no more.
    pub(super) fn take(&mut self, service: &Service) {
        for (_, value) in &service.intercepts.mine {
            if let Some(count) = self.0.get_mut(value) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(value);
                }
            }
        }
    }
}

impl Store {
    /// Since when the port of a Service is known to be intercepted, if there is a claim on it with
    /// `--mine` and this `value`.
    fn mine(&self, name: &Namespaced, port: u16, value: &str) -> Option<Instant> {
        let (origin, since) = self.service(name)?.intercepts.origin.as_ref()?;
        let origin = self
            .namespace(&name.namespace)?
            .services
            .get(&**origin)?
            .intercepts
            .mine
            .iter();
        let mut claims = origin.filter(|(claimed, whose)| *claimed == port && **whose == *value);
        claims.next().map(|_| *since)
    }
}

impl Catalog {
    /// Whether any claim is known that has the condition `--mine` with this `value`.
    #[must_use]
    pub fn has_mine(&self, value: &str) -> bool {
        self.shared.read(|store| store.mine.0.contains_key(value))
    }

    /// Since when the port of a Service is known to be intercepted, if there is a claim on it with
    /// `--mine` and this `value`: the Service leads to the relay, at least as the API server has it.
    #[must_use]
    pub fn mine(&self, service: &Namespaced, port: u16, value: &str) -> Option<Instant> {
        self.shared.read(|store| store.mine(service, port, value))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::k8s::redirect::marks::CLAIMS;

    fn apply(store: &mut Store, service: Value) {
        store.apply_service(&serde_json::from_value(service).unwrap());
    }

    fn intercepted(label: &str) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": "web", "labels": {INTERCEPTED: label}},
            "spec": {"selector": {"a": "b"}},
        })
    }

    fn origin(claims: &Value) -> Value {
        json!({
            "metadata": {
                "namespace": "shop", "name": "kdev-20000", "annotations": {CLAIMS: claims.to_string()},
            },
        })
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_from_the_first_moment_to_the_last() {
        let (mut store, web) = (Store::default(), Namespaced::new("shop", "web"));
        let whose = |store: &Store| {
            let all = [(80, "ada"), (80, "bob"), (81, "ada")];
            all.map(|(port, value)| store.mine(&web, port, value).is_some())
        };
        let claims = json!([
            {"id": "a", "owner": "ada", "port": 80, "when": [{"path": "/"}, {"mine": "ada"}]},
            {"id": "b", "owner": "bob", "port": 80, "when": [{"header": ["x", "1"]}]},
            {"id": "c", "owner": "bob", "port": 80},
        ]);
        // The claim comes before the Service leads to the relay.
        apply(&mut store, origin(&claims));
        assert_eq!(whose(&store), [false; 3]);
        assert!(store.mine.0.contains_key("ada") && !store.mine.0.contains_key("bob"));
        let began = Instant::now();
        apply(&mut store, intercepted("kdev-20000.x"));
        assert_eq!(whose(&store), [true, false, false]);
        // Whatever else changes, it is intercepted since then.
        tokio::time::advance(Duration::from_secs(9)).await;
        apply(&mut store, intercepted("kdev-20000.y"));
        assert_eq!(store.mine(&web, 80, "ada"), Some(began));
        apply(&mut store, origin(&json!([{"id": "b", "owner": "bob"}])));
        assert_eq!(whose(&store), [false; 3]);
        assert!(store.mine.0.is_empty());
        // What cannot be read is nobody's.
        apply(&mut store, origin(&claims));
        apply(&mut store, origin(&json!({"of": "tomorrow"})));
        assert_eq!(whose(&store), [false; 3]);
        apply(&mut store, origin(&claims));
        store.remove_service("shop", "kdev-20000");
        assert!(store.mine.0.is_empty());
        assert_eq!(whose(&store), [false; 3]);
    }
}
