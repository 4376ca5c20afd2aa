//! Label selectors.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label that every namespace has, with its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A label selector. Without any term it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    /// An operator that nobody knows yet selects nothing.
    Unknown,
}

impl Selector {
    /// Reads one; a missing one is that without any term.
    #[must_use]
    pub fn read(selector: &Value) -> Self {
        let exact = selector["matchLabels"].as_object().into_iter().flatten();
        let exact = exact.map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            Term::In(key.clone(), vec![value.to_owned()])
        });
        let expressions = selector["matchExpressions"].as_array();
        let expressions = expressions.into_iter().flatten().map(Term::read);
        Self {
            terms: exact.chain(expressions).collect(),
        }
    }

    /// Whether it selects what has these labels.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selects_by(|key| labels.get(key).map(String::as_str))
    }

    /// Whether it selects what has the labels that `label` finds by their keys.
    #[must_use]
    pub fn selects_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| term.holds(&label))
    }

    /// The labels that must have one certain value.
    pub fn exact(&self) -> impl Iterator<Item = (&str, &str)> {
        self.terms.iter().filter_map(|term| match term {
            Term::In(key, values) => match values.as_slice() {
                [value] => Some((&**key, &**value)),
                _ => None,
            },
            _ => None,
        })
    }

    /// Labels of the plainest thing that it selects.
    #[must_use]
    pub fn example(&self) -> Labels {
        let mut labels = Labels::new();
        for term in &self.terms {
            match term {
                Term::In(key, values) => {
                    let value = values.first().cloned().unwrap_or_default();
                    labels.entry(key.clone()).or_insert(value);
                }
                Term::Exists(key) => {
                    labels.entry(key.clone()).or_default();
                }
                Term::NotIn(..) | Term::DoesNotExist(_) | Term::Unknown => {}
            }
        }
        labels
    }
}

impl Term {
    fn read(expression: &Value) -> Self {
        let key = expression["key"].as_str().unwrap_or_default().to_owned();
        let values = expression["values"].as_array().into_iter().flatten();
        let values = || {
            values
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        match expression["operator"].as_str() {
            Some("In") => Self::In(key, values()),
            Some("NotIn") => Self::NotIn(key, values()),
            Some("Exists") => Self::Exists(key),
            Some("DoesNotExist") => Self::DoesNotExist(key),
            _ => Self::Unknown,
        }
    }

    fn holds<'a>(&self, label: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let is_in = |own: &str, values: &[String]| values.iter().any(|value| value == own);
        match self {
            Self::In(key, values) => label(key).is_some_and(|own| is_in(own, values)),
            Self::NotIn(key, values) => label(key).is_none_or(|own| !is_in(own, values)),
            Self::Exists(key) => label(key).is_some(),
            Self::DoesNotExist(key) => label(key).is_none(),
            Self::Unknown => false,
        }
    }
}

/// As `labelSelector` in a request and `kubectl get -l` have it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match term {
                Term::In(key, values) => match values.as_slice() {
                    [value] => write!(f, "{key}={value}")?,
                    values => write!(f, "{key} in ({})", values.join(","))?,
                },
                Term::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
                Term::Exists(key) => f.write_str(key)?,
                Term::DoesNotExist(key) => write!(f, "!{key}")?,
                // Whoever is asked for it refuses it.
                Term::Unknown => f.write_str("?")?,
            }
        }
        Ok(())
    }
}

/// Labels as an object's metadata or a selector's `matchLabels` have them.
#[must_use]
pub fn labels(of: &Value) -> Labels {
    let of = of.as_object().into_iter().flatten();
    of.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}
