//! A namespace, and an account that may edit it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::installed::{BASE, RELAY};
use crate::lab;
use crate::program::{Done, finish_within, kdev};
use crate::site::{Account, Site};

/// For how long a command is waited for: longer than any of them waits for pods unless told to, so
/// that it can say what it waited for.
const LIMIT: Duration = Duration::from_secs(150);

/// A namespace, and an account with the role `edit` there.
pub(crate) struct Place {
    pub(crate) account: Account,
    pub(crate) site: Site,
}

impl Place {
    pub(crate) fn new(what: &str) -> Self {
        let site = Site::create(what);
        let account = site.account("editor");
        let account_flag = format!("--serviceaccount={}:{}", site.0, account.0);
        let bind = [
            "create",
            "rolebinding",
            "edit",
            "--clusterrole=edit",
            &account_flag,
        ];
        site.kubectl(&bind).unwrap();
        Self { account, site }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = kdev(&self.account.0);
        command.args(args);
        command
    }

    pub(crate) fn kdev(&self, args: &[&str]) -> Done {
        finish_within(LIMIT, &mut self.command(args), b"")
    }

    /// `kdev install` with the lab's base image.
    pub(crate) fn install(&self, args: &[&str]) -> Done {
        let first = ["install", "--base-image", BASE, "--relay-binary", &*RELAY];
        self.kdev(&[&first, args].concat())
    }

    /// Puts objects there as the administrator.
    pub(crate) fn apply(&self, objects: &str) {
        self.site.apply(objects);
    }

    /// A quota of the name `compute`, and what else there is.
    pub(crate) fn bound(&self, objects: &str) {
        self.apply(objects);
        // Admission reads them from a cache, and refuses while a quota was not counted yet.
        self.site.wait("the quota to be counted", |site| {
            let used = site.field("resourcequota/compute", ".status.used");
            !used.is_empty()
        });
    }

    /// All that is in the namespace, but what happened there, with their versions. Pods that are
    /// there have others with every look of the kubelet's, and the endpoints of nobody's Services
    /// are none of ours.
    pub(crate) fn everything(&self) -> BTreeMap<String, String> {
        let kinds = ["api-resources", "--namespaced", "--verbs=list", "-o=name"];
        let kinds = lab::kubectl(&kinds).unwrap();
        let kinds = kinds
            .split_whitespace()
            .filter(|kind| !kind.starts_with("events"));
        let kinds: Vec<&str> = kinds.collect();
        let list = self
            .site
            .kubectl(&["get", &kinds.join(","), "-o", "json"])
            .unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        let described = items.map(|item| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (kind, metadata) = (text(&item["kind"]), &item["metadata"]);
            // What only says how things are changes by itself.
            let version = match kind.as_str() {
                "Secret" | "ConfigMap" | "ServiceAccount" | "RoleBinding" => {
                    text(&metadata["resourceVersion"])
                }
                _ => metadata["generation"].to_string(),
            };
            (format!("{kind} {}", text(&metadata["name"])), version)
        });
        described.collect()
    }
}
