//! The resources that the simulated API server knows.

use crate::options::Options;

/// One row of the discovery documents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) short: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    /// Empty for resources that are only asked (reviews).
    pub(crate) verbs: &'static [&'static str],
    pub(crate) subresources: &'static [Subresource],
}

/// A subresource as discovery lists it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const ASK: &[&str] = &["create"];

pub(crate) static NAMESPACES: Resource = Resource {
    plural: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    namespaced: false,
    short: &["ns"],
    ..CORE
};

pub(crate) static PODS: Resource = Resource {
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short: &["po"],
    categories: &["all"],
    verbs: &["create", "delete", "get", "list", "watch"],
    subresources: &[Subresource {
        name: "portforward",
        kind: "PodPortForwardOptions",
        verbs: &["create", "get"],
    }],
    ..CORE
};

pub(crate) static SERVICES: Resource = Resource {
    plural: "services",
    singular: "service",
    kind: "Service",
    short: &["svc"],
    categories: &["all"],
    verbs: WRITE,
    ..CORE
};

pub(crate) static ENDPOINTS: Resource = Resource {
    plural: "endpoints",
    singular: "endpoints",
    kind: "Endpoints",
    short: &["ep"],
    ..CORE
};

pub(crate) static SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    plural: "endpointslices",
    singular: "endpointslice",
    kind: "EndpointSlice",
    ..CORE
};

/// The same objects under the only version that servers before 1.21 had.
pub(crate) static SLICES_BETA: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1beta1",
    plural: "endpointslices",
    singular: "endpointslice",
    kind: "EndpointSlice",
    ..CORE
};

pub(crate) static SECRETS: Resource = Resource {
    plural: "secrets",
    singular: "secret",
    kind: "Secret",
    verbs: WRITE,
    ..CORE
};

pub(crate) static CONFIG_MAPS: Resource = Resource {
    plural: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    short: &["cm"],
    verbs: WRITE,
    ..CORE
};

pub(crate) static EVENTS: Resource = Resource {
    plural: "events",
    singular: "event",
    kind: "Event",
    short: &["ev"],
    verbs: WRITE,
    ..CORE
};

pub(crate) static QUOTAS: Resource = Resource {
    plural: "resourcequotas",
    singular: "resourcequota",
    kind: "ResourceQuota",
    short: &["quota"],
    ..CORE
};

pub(crate) static RANGES: Resource = Resource {
    plural: "limitranges",
    singular: "limitrange",
    kind: "LimitRange",
    short: &["limits"],
    ..CORE
};

pub(crate) static DEPLOYMENTS: Resource = Resource {
    group: "apps",
    plural: "deployments",
    singular: "deployment",
    kind: "Deployment",
    short: &["deploy"],
    categories: &["all"],
    verbs: WRITE,
    ..CORE
};

pub(crate) static REPLICA_SETS: Resource = Resource {
    group: "apps",
    plural: "replicasets",
    singular: "replicaset",
    kind: "ReplicaSet",
    short: &["rs"],
    categories: &["all"],
    verbs: &["get", "list", "patch", "watch"],
    ..CORE
};

pub(crate) static BUDGETS: Resource = Resource {
    group: "policy",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    kind: "PodDisruptionBudget",
    short: &["pdb"],
    verbs: WRITE,
    ..CORE
};

pub(crate) static NETWORK_POLICIES: Resource = Resource {
    group: "networking.k8s.io",
    plural: "networkpolicies",
    singular: "networkpolicy",
    kind: "NetworkPolicy",
    short: &["netpol"],
    verbs: WRITE,
    ..CORE
};

/// The same on servers before 1.21.
pub(crate) static BUDGETS_BETA: Resource = Resource {
    version: "v1beta1",
    ..BUDGETS
};

pub(crate) static ACCESS_REVIEWS: Resource = Resource {
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    kind: "SelfSubjectAccessReview",
    ..REVIEW
};

pub(crate) static RULES_REVIEWS: Resource = Resource {
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    kind: "SelfSubjectRulesReview",
    ..REVIEW
};

/// Who the caller is; servers from 1.28 have it.
pub(crate) static SELF_REVIEWS: Resource = Resource {
    group: "authentication.k8s.io",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    kind: "SelfSubjectReview",
    ..REVIEW
};

const CORE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    namespaced: true,
    short: &[],
    categories: &[],
    verbs: READ,
    subresources: &[],
};

const REVIEW: Resource = Resource {
    group: "authorization.k8s.io",
    namespaced: false,
    verbs: ASK,
    ..CORE
};

impl Resource {
    /// `v1` or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether it is only asked, and nothing of it is kept.
    pub(crate) fn is_review(&self) -> bool {
        self.verbs == ASK
    }

    pub(crate) fn served(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

/// Everything that a server serves, in discovery's order.
pub(crate) fn all(options: &Options) -> Vec<&'static Resource> {
    let slices = if options.v1beta1_slices {
        &SLICES_BETA
    } else {
        &SLICES
    };
    let budgets = match options.minor() {
        ..21 => &BUDGETS_BETA,
        _ => &BUDGETS,
    };
    let mut all = vec![
        &CONFIG_MAPS,
        &ENDPOINTS,
        &EVENTS,
        &RANGES,
        &NAMESPACES,
        &PODS,
        &QUOTAS,
        &SECRETS,
        &SERVICES,
        &DEPLOYMENTS,
        &REPLICA_SETS,
        &NETWORK_POLICIES,
        budgets,
        slices,
        &ACCESS_REVIEWS,
        &RULES_REVIEWS,
    ];
    if options.minor() >= 28 {
        all.push(&SELF_REVIEWS);
    }
    all
}
