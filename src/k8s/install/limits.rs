//! What the namespace's ResourceQuotas and LimitRanges demand of the relay's containers. Without
//! them a container gets small requests, a memory limit and no CPU limit. What the user chose stands.

use serde_json::{Map, Value, json};

use super::shape::Shape;

/// CPU that a container asks for: an idle relay uses next to none.
const CPU: &str = "10m";
/// Memory that it asks for: twice what an idle relay uses.
const MEMORY: &str = "16Mi";
/// Memory that it may use. The relay's budget for all that it holds follows it (`src/relay/memory.rs`).
const MEMORY_LIMIT: &str = "128Mi";
/// CPU that it may use, only where a limit has to be: what one busy tunnel takes.
const CPU_LIMIT: &str = "500m";
/// Disk that it asks for and may use, only where that has to be said: the unpacked program and
/// some days of logs.
const DISK: &str = "16Mi";
const DISK_LIMIT: &str = "64Mi";

/// Thousandths of a core, byte or whatever a resource is counted in.
pub(super) type Milli = i128;

/// What a container's `resources` should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// As it stands in the manifest.
    pub value: Value,
    /// What the user should know about it.
    pub notes: Vec<String>,
}

/// The `resources` of a container, given the namespace's quotas and ranges and what the user chose.
#[must_use]
pub fn resources(quotas: &[Value], ranges: &[Value], shape: &Shape) -> Resources {
    let quotas: Vec<&Value> = quotas
        .iter()
        .map(|quota| &quota["spec"])
        .filter(|spec| counts_relay(spec, &shape.priority_class))
        .collect();
    let (mut requests, mut limits, mut notes) = (Map::new(), Map::new(), Vec::new());
    for (name, ask, limit, spare) in [
        ("cpu", Some(CPU), None, CPU_LIMIT),
        ("memory", Some(MEMORY), Some(MEMORY_LIMIT), MEMORY_LIMIT),
        ("ephemeral-storage", None, None, DISK_LIMIT),
    ] {
        let range = Range::of(ranges, name);
        let asked_for = ["requests.", ""].map(|prefix| format!("{prefix}{name}"));
        let needs_request = asked_for.iter().any(|key| is_counted(&quotas, key));
        let needs_limit = is_counted(&quotas, &format!("limits.{name}"));
        let is_counted = needs_request || range.min.is_some();
        let ask = ask.or_else(|| is_counted.then_some(DISK));
        let mut request = ask.and_then(parse).max(range.min);
        if let Some(max) = range.max {
            request = request.map(|request| request.min(max));
        }
        // The server gives what has no limit the range's default; one below the request, which it
        // would refuse, is raised here.
        let defaulted = range
            .default
            .is_some_and(|default| Some(default) >= request);
        let demanded = (needs_limit || range.max.is_some()) && !defaulted
            || range.ratio.is_some()
            || range.default.is_some_and(|default| Some(default) < request);
        let mut most = limit.or_else(|| demanded.then_some(spare)).and_then(parse);
        if let Some(max) = range.max {
            most = most.map(|most| most.min(max));
        }
        most = most.map(|most| request.map_or(most, |request| most.max(request)));
        if let (Some(ratio), Some(most)) = (range.ratio, most) {
            let least = (most * 1000 + ratio - 1) / ratio;
            request = Some(request.map_or(least, |request| request.max(least)));
        }
        let chosen = |what: &str| shape.size(name, what).and_then(parse);
        let (own_request, own_limit) = (chosen("request"), chosen("limit"));
        request = own_request.or(request);
        most = own_limit.or(most);
        // The one that was not chosen gives way.
        if let (Some(asked), Some(limit)) = (request, most)
            && asked > limit
        {
            match own_limit.is_some() {
                true => request = most,
                false => most = request,
            }
        }
        if name == "memory" && most < parse(MEMORY_LIMIT) {
            let most = most.map(|most| format(name, most)).unwrap_or_default();
            let who = match own_limit.is_some() {
                true => format!("--memory-limit is {most}"),
                false => format!("a LimitRange allows a container no more than {most} of memory"),
            };
            notes.push(format!(
                "{who}; with less than {MEMORY_LIMIT} the relay serves fewer callers and tunnels at a \
                 time"
            ));
        }
        let put = |into: &mut Map<String, Value>, amount: Option<Milli>| {
            if let Some(amount) = amount {
                into.insert(name.to_owned(), json!(format(name, amount)));
            }
        };
        put(&mut requests, request);
        put(&mut limits, most);
        for (into, what) in [(&mut requests, "request"), (&mut limits, "limit")] {
            if let Some(text) = shape.size(name, what) {
                into.insert(name.to_owned(), json!(text));
            }
        }
    }
    Resources {
        value: json!({"requests": requests, "limits": limits}),
        notes,
    }
}

/// Whether one of these quotas counts `key`, and so demands it of each pod.
fn is_counted(quotas: &[&Value], key: &str) -> bool {
    quotas.iter().any(|spec| spec["hard"].get(key).is_some())
}

/// Quotas may be about certain pods only; the relay's have requests, no deadline, and the priority
/// class that the user chose, if any.
pub(super) fn counts_relay(spec: &Value, priority_class: &str) -> bool {
    let scopes = spec["scopes"].as_array().into_iter().flatten();
    let other = |scope: &Value| scope == "BestEffort" || scope == "Terminating";
    let selected = spec["scopeSelector"]["matchExpressions"].as_array();
    let selected = selected.into_iter().flatten().all(|term| {
        let is = |operator: &str| term["operator"] == operator;
        match term["scopeName"].as_str().unwrap_or_default() {
            "PriorityClass" => {
                let values = term["values"].as_array().into_iter().flatten();
                let named = values.into_iter().any(|value| *value == priority_class);
                match term["operator"].as_str().unwrap_or_default() {
                    "In" => named,
                    "NotIn" => !named,
                    "Exists" => !priority_class.is_empty(),
                    _ => priority_class.is_empty(),
                }
            }
            "CrossNamespacePodAffinity" => is("DoesNotExist"),
            "BestEffort" | "Terminating" => is("DoesNotExist"),
            _ => true,
        }
    });
    !scopes.clone().any(other) && selected
}

/// What all LimitRanges together say about one resource.
#[derive(Debug, Default)]
struct Range {
    min: Option<Milli>,
    max: Option<Milli>,
    default: Option<Milli>,
    ratio: Option<Milli>,
}

impl Range {
    fn of(ranges: &[Value], name: &str) -> Self {
        let mut all = Self::default();
        let items = ranges
            .iter()
            .flat_map(|range| range["spec"]["limits"].as_array().into_iter().flatten());
        // A pod is judged by the largest of its init containers and the sum of the others: for
        // the relay's pods both are one container.
        for item in items.filter(|item| item["type"] == "Container" || item["type"] == "Pod") {
            let amount = |field: &str| item[field][name].as_str().and_then(parse);
            all.min = all.min.max(amount("min"));
            for (kept, field) in [
                (&mut all.max, "max"),
                (&mut all.ratio, "maxLimitRequestRatio"),
            ] {
                let lower = [*kept, amount(field)].into_iter().flatten().min();
                *kept = lower;
            }
            if item["type"] == "Container" {
                all.default = all.default.or_else(|| amount("default"));
            }
        }
        all
    }
}

/// A Kubernetes quantity, rounded up to thousandths.
pub(super) fn parse(text: &str) -> Option<Milli> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    // In thousandths, as numerator and denominator.
    let (up, down): (Milli, Milli) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?.parse::<u32>().ok()?;
            (1000 * Milli::from(10).checked_pow(exponent)?, 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = Milli::from(10).checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: Milli = format!("{whole}{fraction}").parse().ok()?;
    let (top, bottom) = (digits.checked_mul(up)?, down.checked_mul(scale)?);
    Some((top + bottom - 1) / bottom)
}

/// A quantity as people write it.
pub(super) fn format(resource: &str, amount: Milli) -> String {
    let whole = (amount + 999) / 1000;
    if resource == "cpu" {
        return match amount % 1000 {
            0 => whole.to_string(),
            _ => format!("{amount}m"),
        };
    }
    match whole {
        n if n > 0 && n % (1 << 20) == 0 => format!("{}Mi", n >> 20),
        n if n > 0 && n % (1 << 10) == 0 => format!("{}Ki", n >> 10),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: Value) -> Value {
        json!({"spec": {"hard": hard}})
    }

    fn range(kind: &str, rest: Value) -> Value {
        let mut item = rest;
        item["type"] = json!(kind);
        json!({"spec": {"limits": [item]}})
    }

    fn resources(quotas: &[Value], ranges: &[Value]) -> Resources {
        super::resources(quotas, ranges, &Shape::default())
    }

    fn plain() -> Value {
        json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}})
    }

    #[test]
    fn quantities_in_every_spelling() {
        for (text, milli) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1500u", 2),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
        ] {
            assert_eq!(parse(text), Some(milli), "{text}");
        }
        for text in ["", "x", "1x", "-1", "1e99"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(format("cpu", 500), "500m");
        assert_eq!(format("cpu", 2000), "2");
        assert_eq!(format("memory", 128_000 << 20), "128Mi");
        assert_eq!(format("memory", 1_000_000), "1000");
    }

    #[test]
    fn limits_stand_only_where_they_are_demanded() {
        assert_eq!(resources(&[], &[]).value, plain());
        let pods = quota(json!({"pods": "10", "limits.memory": "1Gi", "requests.cpu": "1"}));
        assert_eq!(resources(&[pods], &[]).value, plain());
        let cpu = quota(json!({"limits.cpu": "2"}));
        let with = resources(std::slice::from_ref(&cpu), &[]).value;
        assert_eq!(with["limits"]["cpu"], "500m");
        // The server fills in a default by itself.
        let default = range("Container", json!({"default": {"cpu": "200m"}}));
        assert_eq!(resources(&[cpu], &[default]).value, plain());
        let disk = quota(json!({"requests.ephemeral-storage": "1Gi"}));
        let with = resources(&[disk], &[]).value;
        assert_eq!(with["requests"]["ephemeral-storage"], "16Mi");
        assert_eq!(with["limits"].get("ephemeral-storage"), None);
    }

    #[test]
    fn quotas_of_other_pods_demand_nothing() {
        let mut cpu = quota(json!({"limits.cpu": "2"}));
        cpu["spec"]["scopes"] = json!(["Terminating"]);
        assert_eq!(resources(&[cpu], &[]).value, plain());
        let mut cpu = quota(json!({"limits.cpu": "2"}));
        cpu["spec"]["scopeSelector"]["matchExpressions"] =
            json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]);
        assert_eq!(resources(&[cpu], &[]).value, plain());
    }

    #[test]
    fn ranges_raise_and_lower() {
        let min = range(
            "Container",
            json!({"min": {"cpu": "50m", "memory": "32Mi"}}),
        );
        let raised = resources(&[], &[min]).value;
        assert_eq!(raised["requests"], json!({"cpu": "50m", "memory": "32Mi"}));
        let small = range(
            "Container",
            json!({"max": {"memory": "64Mi"}, "default": {"memory": "64Mi"}}),
        );
        let lowered = resources(&[], &[small]);
        assert_eq!(lowered.value["limits"]["memory"], "64Mi");
        assert!(lowered.notes[0].contains("64Mi"), "{:?}", lowered.notes);
        let ratio = range(
            "Pod",
            json!({"maxLimitRequestRatio": {"memory": "2", "cpu": "10"}}),
        );
        let even = resources(&[], &[ratio]).value;
        assert_eq!(even["requests"], json!({"cpu": "50m", "memory": "64Mi"}));
        assert_eq!(even["limits"]["cpu"], "500m");
        let tiny = range("Container", json!({"default": {"cpu": "5m"}}));
        assert_eq!(resources(&[], &[tiny]).value["limits"]["cpu"], "500m");
        let pod = range("Pod", json!({"max": {"cpu": "100m"}}));
        assert_eq!(resources(&[], &[pod]).value["limits"]["cpu"], "100m");
    }

    #[test]
    fn what_the_user_chose_stands() {
        let sized = |sizes: &[(&str, &str)], ranges: &[Value]| {
            let sizes = sizes.iter();
            let sizes = sizes.map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
            let shape = Shape {
                sizes: sizes.collect(),
                ..Shape::default()
            };
            super::resources(&[], ranges, &shape)
        };
        let both = sized(&[("cpu-request", "0.05"), ("cpu-limit", "500m")], &[]).value;
        assert_eq!(both["requests"]["cpu"], "0.05");
        assert_eq!(both["limits"]["cpu"], "500m");
        // What was not chosen gives way.
        let large = sized(&[("memory-request", "1Gi")], &[]).value;
        assert_eq!(large["limits"]["memory"], "1024Mi");
        let small = sized(&[("memory-limit", "8Mi")], &[]);
        assert_eq!(small.value["requests"]["memory"], "8Mi");
        assert!(
            small.notes[0].contains("--memory-limit is 8Mi"),
            "{:?}",
            small.notes
        );
        let min = range("Container", json!({"min": {"cpu": "200m"}}));
        let asked = sized(&[("cpu-request", "50m")], &[min]).value;
        assert_eq!(
            asked["requests"]["cpu"], "50m",
            "the API server says what is wrong"
        );
    }

    #[test]
    fn quotas_of_a_priority_class() {
        let mut cpu = quota(json!({"limits.cpu": "2"}));
        cpu["spec"]["scopeSelector"]["matchExpressions"] =
            json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["low"]}]);
        let of = |class: &str| {
            let shape = Shape {
                priority_class: class.to_owned(),
                ..Shape::default()
            };
            super::resources(std::slice::from_ref(&cpu), &[], &shape).value
        };
        assert_eq!(of("low")["limits"]["cpu"], "500m");
        assert_eq!(of("high"), plain());
    }
}
