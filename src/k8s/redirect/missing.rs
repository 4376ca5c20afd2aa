//! Why a Service that shall be intercepted is not there.

use serde_json::Value;

use super::engage::no_service;
use super::object::name;
use super::origin::SELECTOR;
use super::site::Site;
use crate::intercept::redirect::RedirectError;
use crate::k8s::similar::{did_you_mean, similar};

/// Services of the same name in other namespaces that are offered.
const OFFERED: usize = 3;

impl Site {
    /// The error for a Service that is not there, with what was perhaps meant. Three requests at most,
    /// the answers to which may also be that the user may not know.
    pub(super) async fn missing(&self, service: &str) -> RedirectError {
        let namespace = &self.namespace;
        let mut error = no_service(self, service);
        if let RedirectError::Missing { fix, .. } = &mut error {
            *fix = match self.namespace().await {
                Ok(None) => format!("namespace {namespace} does not exist"),
                Ok(Some(_)) | Err(_) => self.meant(service).await.unwrap_or_default(),
            };
        }
        error
    }

    async fn meant(&self, service: &str) -> Option<String> {
        let here = self.list(&self.services(""), "list services").await;
        let here = here.unwrap_or_default();
        // An origin is nothing that a user means.
        let is_origin = |object: &Value| !object["metadata"]["labels"][SELECTOR].is_null();
        let own = here.iter().filter(|object| !is_origin(object));
        let meant = similar(own.map(name), service).into_iter();
        let meant: Vec<String> = meant.map(str::to_owned).collect();
        if let Some(question) = did_you_mean(&meant) {
            return Some(question);
        }
        let path =
            format!("/api/v1/services?fieldSelector=metadata.name%3D{service}&limit={OFFERED}");
        let elsewhere = self.list(&path, "list services").await.ok()?;
        let namespaces = elsewhere
            .iter()
            .filter_map(|object| object["metadata"]["namespace"].as_str())
            .map(|namespace| format!("-n {namespace}"));
        let namespaces: Vec<String> = namespaces.take(OFFERED).collect();
        did_you_mean(&namespaces)
    }
}
