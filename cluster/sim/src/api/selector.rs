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
    /// The error is the real server's message.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        let text = text.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts = outside_of_parentheses(text).into_iter();
        parts
            .map(|part| Requirement::parse(part.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
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
    fn parse(text: &str) -> Result<Self, String> {
        let expected = |found: &str, what: &str| {
            format!("unable to parse requirement: found '{found}', expected: {what}")
        };
        let word = |text: &str| -> Result<String, String> {
            let text = text.trim();
            let ends = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
            let rest = text[ends..].trim_start();
            match (text.is_empty() || ends == 0, rest.is_empty()) {
                (false, true) => Ok(text.to_owned()),
                (true, _) => Err(expected(text.get(..1).unwrap_or_default(), "identifier")),
                (false, false) => Err(expected(rest, "'=', '!=', '==', 'in', notin'")),
            }
        };
        let value = |text: &str| {
            if text.trim().is_empty() {
                Ok("".to_owned())
            } else {
                word(text)
            }
        };
        if let Some(key) = text.strip_prefix('!') {
            return Ok(Self::Missing(word(key)?));
        }
        if let Some((key, unwanted)) = text.split_once("!=") {
            return Ok(Self::NotIn(word(key)?, vec![value(unwanted)?]));
        }
        if let Some((key, wanted)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Ok(Self::In(word(key)?, vec![value(wanted)?]));
        }
        let Some((head, list)) = text.split_once('(') else {
            return Ok(Self::Exists(word(text)?));
        };
        let Some(list) = list.strip_suffix(')') else {
            return Err(expected("", "',', or ')'"));
        };
        let values = list.split(',').map(value).collect::<Result<_, _>>()?;
        match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Ok(Self::In(word(key)?, values)),
            [key, "notin"] => Ok(Self::NotIn(word(key)?, values)),
            _ => Err(expected(head.trim(), "'in', notin'")),
        }
    }
}

/// What keys and values of labels consist of.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./".contains(c)
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
    /// The error is the real server's message.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        let text = text.unwrap_or_default();
        let terms = text.split(',').filter(|term| !term.is_empty()).map(|term| {
            let unequal = term.split_once("!=").map(|(k, v)| (k, v, false));
            let equal = || {
                let pair = term.split_once("==").or_else(|| term.split_once('='));
                pair.map(|(k, v)| (k, v, true))
            };
            let (field, value, wanted) = unequal
                .or_else(equal)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            Ok((field.trim().to_owned(), value.trim().to_owned(), wanted))
        });
        terms.collect::<Result<_, _>>().map(Self)
    }

    /// The fields that are looked at.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.0.as_str())
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
        Labels::parse(Some(selector)).unwrap().matches(&object)
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
    fn what_is_no_selector_is_refused_in_the_real_words() {
        for (selector, message) in [
            ("a===b", "found '=', expected: identifier"),
            ("!", "found '', expected: identifier"),
            ("a b", "found 'b', expected: '=', '!=', '==', 'in', notin'"),
        ] {
            let error = Labels::parse(Some(selector)).unwrap_err();
            assert_eq!(error, format!("unable to parse requirement: {message}"));
        }
        let error = Fields::parse(Some("abc")).unwrap_err();
        assert_eq!(error, "invalid selector: 'abc'; can't understand 'abc'");
    }

    #[test]
    fn field_selectors_look_into_the_object() {
        let pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}});
        let matches = |selector| Fields::parse(Some(selector)).unwrap().matches(&pod);
        assert!(matches("metadata.name=a,status.phase!=Failed"));
        assert!(!matches("metadata.name=b"));
        assert_eq!(
            Fields::parse(Some("metadata.name=a"))
                .unwrap()
                .single_name()
                .as_deref(),
            Some("a")
        );
        assert_eq!(
            Fields::parse(Some("metadata.name!=a"))
                .unwrap()
                .single_name(),
            None
        );
    }
}
