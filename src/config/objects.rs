//! Settings of what kdev puts into the cluster: what policies there may ask for.

use super::{Config, Fallback, Kind, Project, Setting, Value, on};
use crate::k8s::install::shape;

const AS_INSTALLED: Fallback = Fallback::Means("as it was installed, else none");
const WORKED_OUT: Fallback =
    Fallback::Means("as it was installed, else what quotas and limits allow");

pub(super) const LABEL: Setting = Setting {
    key: "label",
    short: None,
    value_name: "KEY=VALUE",
    kind: Kind::List,
    help: "Label for all objects that kdev makes, Services of intercepts included; repeatable",
    fallback: Fallback::Means("as the relay was installed, else none"),
    project: Project::May,
    on: on::INSTALL | on::INTERCEPT | on::RUN,
    set: |config, value| {
        config.shape.labels = Some(shape::labels(value.list())?);
        Ok(())
    },
};

pub(super) const ANNOTATION: Setting = Setting {
    key: "annotation",
    short: None,
    value_name: "KEY=VALUE",
    kind: Kind::List,
    help: "Annotation for all objects that kdev makes, Services of intercepts included; repeatable",
    fallback: Fallback::Means("as the relay was installed, else none"),
    project: Project::May,
    on: on::INSTALL | on::INTERCEPT | on::RUN,
    set: |config, value| {
        config.shape.annotations = Some(shape::annotations(value.list())?);
        Ok(())
    },
};

pub(super) const CPU_REQUEST: Setting = Setting {
    key: "cpu-request",
    help: "CPU request of each relay container, such as 50m",
    set: |config, value| size(config, "cpu-request", value),
    ..SIZE
};

pub(super) const CPU_LIMIT: Setting = Setting {
    key: "cpu-limit",
    help: "CPU limit of each relay container, such as 500m",
    set: |config, value| size(config, "cpu-limit", value),
    ..SIZE
};

pub(super) const MEMORY_REQUEST: Setting = Setting {
    key: "memory-request",
    help: "Memory request of each relay container, such as 32Mi",
    set: |config, value| size(config, "memory-request", value),
    ..SIZE
};

pub(super) const MEMORY_LIMIT: Setting = Setting {
    key: "memory-limit",
    help: "Memory limit of each relay container, such as 256Mi",
    set: |config, value| size(config, "memory-limit", value),
    ..SIZE
};

const SIZE: Setting = Setting {
    key: "",
    short: None,
    value_name: "QUANTITY",
    kind: Kind::Text,
    help: "",
    fallback: WORKED_OUT,
    project: Project::May,
    on: on::INSTALL,
    set: |_, _| Ok(()),
};

fn size(config: &mut Config, key: &str, value: &Value) -> Result<(), String> {
    let quantity = shape::quantity(value.text())?;
    config.shape.sizes.insert(key.to_owned(), quantity);
    Ok(())
}

pub(super) const NODE_SELECTOR: Setting = Setting {
    key: "node-selector",
    short: None,
    value_name: "KEY=VALUE",
    kind: Kind::List,
    help: "Label of the nodes that the relay may run on; repeatable",
    fallback: AS_INSTALLED,
    project: Project::May,
    on: on::INSTALL,
    set: |config, value| {
        config.shape.node_selector = Some(shape::node_labels(value.list())?);
        Ok(())
    },
};

pub(super) const TOLERATION: Setting = Setting {
    key: "toleration",
    short: None,
    value_name: "KEY[=VALUE][:EFFECT]",
    kind: Kind::List,
    help: "Taint of nodes that the relay tolerates, * for every key; repeatable",
    fallback: AS_INSTALLED,
    project: Project::May,
    on: on::INSTALL,
    set: |config, value| {
        config.shape.tolerations = Some(shape::tolerations(value.list())?);
        Ok(())
    },
};

pub(super) const PRIORITY_CLASS: Setting = Setting {
    key: "priority-class",
    short: None,
    value_name: "NAME",
    kind: Kind::Text,
    help: "PriorityClass of the relay's pods",
    fallback: AS_INSTALLED,
    project: Project::May,
    on: on::INSTALL,
    set: |config, value| {
        config.shape.priority_class = Some(shape::object_name(value.text())?);
        Ok(())
    },
};

pub(super) const RUNTIME_CLASS: Setting = Setting {
    key: "runtime-class",
    short: None,
    value_name: "NAME",
    kind: Kind::Text,
    help: "RuntimeClass of the relay's pods",
    fallback: AS_INSTALLED,
    project: Project::May,
    on: on::INSTALL,
    set: |config, value| {
        config.shape.runtime_class = Some(shape::object_name(value.text())?);
        Ok(())
    },
};

pub(super) const IMAGE_PULL_SECRET: Setting = Setting {
    key: "image-pull-secret",
    short: None,
    value_name: "NAME",
    kind: Kind::List,
    help: "Secret with which the relay's image is pulled; repeatable",
    fallback: AS_INSTALLED,
    project: Project::May,
    on: on::INSTALL,
    set: |config, value| {
        let names = value.list().iter().map(|name| shape::object_name(name));
        config.shape.pull_secrets = Some(names.collect::<Result<_, _>>()?);
        Ok(())
    },
};
