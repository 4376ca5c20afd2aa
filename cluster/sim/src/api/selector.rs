//! Label and field selectors.

use serde_json::Value;

/// A parsed `labelSelector`: all requirements must hold.
#[derive(Debug, Default)]
pub(crate) struct Labels(Vec<Requirement>);

#[derive(Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Labels {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let requirements = outside_of_parentheses(text.unwrap_or_default());
        Self(
            requirements
                .iter()
                .filter_map(|part| Requirement::parse(part.trim()))
                .collect(),
        )
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                value(key).is_some_and(|v| values.iter().any(|wanted| wanted == v))
            }
            Requirement::NotIn(key, values) => {
                value(key).is_none_or(|v| values.iter().all(|unwanted| unwanted != v))
            }
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Missing(key) => value(key).is_none(),
        })
    }
}

impl Requirement {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if let Some(key) = text.strip_prefix('!') {
            return Some(Self::Missing(key.trim().to_owned()));
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Some(Self::NotIn(
                key.trim().to_owned(),
                vec![value.trim().to_owned()],
            ));
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Some(Self::In(
                key.trim().to_owned(),
                vec![value.trim().to_owned()],
            ));
        }
        let Some((head, list)) = text.split_once('(') else {
            return Some(Self::Exists(text.to_owned()));
        };
        let values = list
            .trim_end_matches(')')
            .split(',')
            .map(|v| v.trim().to_owned())
            .collect();
        let mut words = head.split_whitespace();
        let key = words.next()?.to_owned();
        match words.next()? {
            "in" => Some(Self::In(key, values)),
            _ => Some(Self::NotIn(key, values)),
        }
    }
}

/// Splits at the commas that are not within a list of values.
fn outside_of_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let comma = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    text.split(comma).collect()
}

/// A parsed `fieldSelector`.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String, bool)>);

impl Fields {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let terms = text
            .unwrap_or_default()
            .split(',')
            .filter(|term| !term.is_empty());
        Self(
            terms
                .filter_map(|term| {
                    let unequal = term.split_once("!=").map(|(k, v)| (k, v, false));
                    let equal = || {
                        let pair = term.split_once("==").or_else(|| term.split_once('='));
                        pair.map(|(k, v)| (k, v, true))
                    };
                    let (field, value, wanted) = unequal.or_else(equal)?;
                    Some((field.trim().to_owned(), value.trim().to_owned(), wanted))
                })
                .collect(),
        )
    }

    /// The name, when the selector asks for exactly one.
    pub(crate) fn single_name(&self) -> Option<String> {
        let by_name = |term: &&(String, String, bool)| term.0 == "metadata.name" && term.2;
        self.0.iter().find(by_name).map(|term| term.1.clone())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, value, wanted)| {
            let found = field.split('.').fold(object, |at, part| &at[part]);
            (found.as_str().unwrap_or_default() == value) == *wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labelled(selector: &str) -> bool {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        Labels::parse(Some(selector)).matches(&object)
    }

    #[test]
    fn label_selectors_of_every_kind() {
        for selector in [
            "",
            "app=web",
            "app==web",
            "app",
            "!gone",
            "app!=db",
            "app in (db, web),tier=front",
            "app notin (db)",
            "gone notin (x)",
        ] {
            assert!(labelled(selector), "{selector}");
        }
        for selector in [
            "app=db",
            "gone",
            "!app",
            "app!=web",
            "app in (db)",
            "app notin (web,x)",
        ] {
            assert!(!labelled(selector), "{selector}");
        }
    }

    #[test]
    fn field_selectors_look_into_the_object() {
        let pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}});
        let matches = |selector| Fields::parse(Some(selector)).matches(&pod);
        assert!(matches("metadata.name=a,status.phase!=Failed"));
        assert!(!matches("metadata.name=b"));
        assert_eq!(
            Fields::parse(Some("metadata.name=a"))
                .single_name()
                .as_deref(),
            Some("a")
        );
        assert_eq!(Fields::parse(Some("metadata.name!=a")).single_name(), None);
    }
}
