//! The JSON schema of the files, for editors.

use serde_json::{Map, Value as Json, json};

use super::{Fallback, Kin, Kind, Project, SETTINGS, Setting};

/// The schema of a project's file or of the user's.
#[must_use]
pub fn schema(kin: Kin) -> Json {
    let allowed =
        |setting: &&Setting| kin == Kin::User || !matches!(setting.project, Project::MayNot(_));
    let properties: Map<String, Json> = SETTINGS
        .iter()
        .filter(allowed)
        .map(|setting| (setting.key.to_owned(), property(setting)))
        .collect();
    let title = match kin {
        Kin::Project => "Settings of kdev for a project: .kdev.toml",
        Kin::User => "Settings of kdev for a user: kdev/config.toml",
    };
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(setting: &Setting) -> Json {
    let mut schema = match setting.kind {
        Kind::Text | Kind::Path => json!({"type": "string", "minLength": 1}),
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Choice(names) => {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            json!({"type": "string", "enum": names})
        }
        Kind::Address => json!({"anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 65535},
            {"type": "string", "minLength": 1},
        ]}),
        Kind::List => json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
    };
    schema["description"] = setting.help.into();
    if let Fallback::Is(text) = setting.fallback {
        schema["default"] = match setting.kind {
            Kind::Switch => (text == "true").into(),
            _ => text.into(),
        };
    }
    schema
}
