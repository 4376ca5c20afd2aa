//! The Role for whoever runs the cluster to apply, where rights are missing that everything takes.

use crate::k8s::identity::Identity;

/// Who the Role is bound to, as YAML. A server that does not tell leaves the kubeconfig's name for
/// the user, which is the cluster's more often than not.
pub(super) fn subject(identity: Option<&Identity>, in_kubeconfig: &str) -> String {
    let name = identity.map_or(in_kubeconfig, |i| &i.username);
    let account = name.strip_prefix("system:serviceaccount:");
    match account.and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => {
            format!("kind: ServiceAccount\n  namespace: {namespace:?}\n  name: {name:?}")
        }
        None => format!("kind: User\n  apiGroup: rbac.authorization.k8s.io\n  name: {name:?}"),
    }
}

/// All that kdev needs or makes use of, in one namespace.
pub(super) fn role(namespace: &str, subject: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: kdev, namespace: {namespace}}}
rules:
- {{apiGroups: [\"\"], resources: [pods, services], verbs: [get, list, watch]}}
- {{apiGroups: [\"\"], resources: [pods/portforward], verbs: [get, create]}}
- {{apiGroups: [\"\"], resources: [endpoints], verbs: [get]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: kdev, namespace: {namespace}}}
subjects:
- {subject}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: kdev}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_bound_as_one() {
        let identity = |name: &str| Identity {
            username: name.to_owned(),
            groups: Vec::new(),
        };
        let bound = subject(Some(&identity("system:serviceaccount:shop:dev")), "x");
        assert_eq!(
            bound,
            "kind: ServiceAccount\n  namespace: \"shop\"\n  name: \"dev\""
        );
        let me = subject(Some(&identity("me@example.com")), "x");
        assert!(
            me.contains("kind: User") && me.contains("me@example.com"),
            "{me}"
        );
        assert!(subject(None, "ada").contains(r#"name: "ada""#));
    }
}
