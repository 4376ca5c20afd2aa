//! What is wrong with a name that is not there, as far as the cluster tells: asked for only once a
//! dial has failed.

use std::sync::Arc;
use std::time::Duration;

use super::Catalog;
use super::missing;
use super::name::Query;
use crate::addr::{Host, Namespaced};
use crate::dial::DialError;

/// How long a failure may be held up by the question what is wrong with it.
const LIMIT: Duration = Duration::from_secs(2);

/// What is said of a name that neither side knows.
const NEITHER: &str =
    "it is neither a Service that you may see in the cluster nor a name that this machine resolves";

/// Why a Service is not there.
enum Why {
    /// It could not be looked for.
    Denied(String),
    /// Its namespace does not exist.
    NoNamespace,
    /// Nothing of that name is seen.
    Absent,
}

impl Catalog {
    /// Why `service` is not there, and what may have been meant. Asks the cluster what is not known;
    /// bounded in time.
    pub async fn absence(&self, service: &Namespaced) -> String {
        let Namespaced { namespace, name } = service;
        match self.why(service).await {
            Why::Denied(what) => format!("{what}, so that kdev cannot look for Service {name}"),
            Why::NoNamespace => {
                let none = format!("namespace {namespace} does not exist");
                match self.meant(service) {
                    Some(question) => format!("{none}; {question}"),
                    None => none,
                }
            }
            Why::Absent => self.shared.read(|store| missing::near(store, service)),
        }
    }

    /// What is wrong with a name that may be a Service's and that the laptop does not know either;
    /// nothing where it is most likely none of the cluster's.
    pub(super) async fn hint_of(&self, host: &Host) -> Option<String> {
        let service = self.services_named(host).into_iter().next()?;
        let ours = service.namespace == self.shared.client.namespace()
            || self.shared.knows(&service.namespace);
        if ours {
            let why = self.absence(&service).await;
            return Some(format!("{NEITHER}; {why}"));
        }
        // `github.com` may be Service `github` of namespace `com`, and is not.
        let why = match self.why(&service).await {
            Why::Denied(what) => {
                format!("{what}, if Service {} there is meant", service.name)
            }
            Why::NoNamespace | Why::Absent => self.meant(&service)?,
        };
        Some(format!("{NEITHER}; {why}"))
    }

    async fn why(&self, service: &Namespaced) -> Why {
        // The dial asked about it a moment ago, in one of these forms.
        let [certain, uncertain] = [true, false].map(|certain| Query {
            certain,
            ..Query::service(service.clone())
        });
        let answered = |query: &Query| self.shared.answered(query);
        let learned = answered(&uncertain).or_else(|| answered(&certain));
        if let Some(Err(DialError::Denied {
            verb,
            resource,
            namespace,
            ..
        })) = learned.map(|learned| learned.is_there())
        {
            return Why::Denied(format!(
                "you may not {verb} {resource} in namespace {namespace}"
            ));
        }
        if self.shared.knows(&service.namespace) {
            return Why::Absent;
        }
        let query = Query::existence(&service.namespace);
        let asking = Arc::clone(&self.shared).ask(&query);
        match tokio::time::timeout(LIMIT, asking).await {
            Ok(learned) if matches!(learned.is_there(), Ok(false)) => Why::NoNamespace,
            // Who may not look at namespaces learns no more.
            Ok(_) | Err(_) => Why::Absent,
        }
    }

    /// The Service or the namespace that may have been meant.
    fn meant(&self, service: &Namespaced) -> Option<String> {
        self.shared.read(|store| missing::meant(store, service))
    }
}
