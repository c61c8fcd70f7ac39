//! The JSON schema of the configuration (draft 7), for editors: from the same list of keys as the reference.
//!
//! It accepts every file that cosgate accepts. What a file must have it does not say, since a variable of the
//! environment may set that; `cosgate check` does.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::grammar::{spell, spell_size};
use super::keys::{ConfigKey, ConfigTable, Default, ROOT, Value};

/// Names of tenants, issuers and the like.
const NAME: &str = "^[A-Za-z0-9_.-]{1,64}$";
const DURATION: &str = "^([0-9]+(h|ms|m|s))+$";
const NUMBER: &str = "^[0-9]+$";
const SIZE: &str = "^[0-9]+(B|KiB|MiB|GiB|TiB)?$";

/// The schema.
pub fn schema() -> Json {
    let mut schema = table(&ROOT);
    if let Json::Object(schema) = &mut schema {
        let head = [
            ("$schema", json!("http://json-schema.org/draft-07/schema#")),
            ("title", json!("cosgate")),
            ("description", json!("The configuration of cosgate.")),
        ];
        schema.extend(head.map(|(name, value)| (name.to_owned(), value)));
    }
    schema
}

fn table(table: &'static ConfigTable) -> Json {
    let kinds = table.keys.iter().find_map(|key| match key.value {
        Value::Choice(kinds) if key.name == "kind" => Some(kinds),
        _ => None,
    });
    let Some(kinds) = kinds else {
        return object(table.about, table.keys_of(None), None);
    };
    let of_kind = |kind: &&str| object(table.about, table.keys_of(Some(*kind)), Some(*kind));
    json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() })
}

fn object(about: &str, keys: impl Iterator<Item = &'static ConfigKey>, kind: Option<&str>) -> Json {
    let mut properties = Map::new();
    for key in keys {
        let schema = match kind {
            Some(kind) if key.name == "kind" => {
                json!({ "description": plain(key.meaning), "const": kind })
            }
            _ => property(key),
        };
        properties.insert(key.name.to_owned(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    describe(&mut schema, plain(about));
    schema
}

fn property(key: &'static ConfigKey) -> Json {
    let mut schema = match &key.value {
        Value::Text(_) | Value::Secret => json!({ "type": "string" }),
        Value::Choice(words) => json!({ "enum": words }),
        Value::Flag => json!({ "type": "boolean" }),
        Value::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Value::Count(min, max) => number(*min, *max, NUMBER),
        Value::Size(min, max) => number(*min, *max, SIZE),
        // Users of the machine have numbers, too.
        Value::Texts(form) if form.contains("number") => {
            json!({ "type": "array", "items": { "type": ["string", "integer"] } })
        }
        Value::Texts(_) | Value::Secrets => {
            json!({ "type": "array", "items": { "type": "string" } })
        }
        Value::Table(inner) => return table(inner),
        Value::Named(inner) => {
            return json!({
                "type": "object",
                "propertyNames": { "pattern": NAME },
                "additionalProperties": table(inner),
            });
        }
        Value::Tables(inner) => return json!({ "type": "array", "items": table(inner) }),
    };
    let allowed = allowed(&key.value);
    let meaning = plain(key.meaning);
    describe(
        &mut schema,
        format!("{meaning}{allowed}{}", when_absent(key.default)),
    );
    if let (Json::Object(schema), Some(default)) = (&mut schema, default(key)) {
        schema.insert("default".to_owned(), default);
    }
    schema
}

/// A number, or one as a text.
fn number(min: u64, max: u64, text: &str) -> Json {
    json!({ "anyOf": [
        { "type": "integer", "minimum": min, "maximum": max },
        { "type": "string", "pattern": text },
    ] })
}

fn describe(schema: &mut Json, text: String) {
    if let Json::Object(schema) = schema
        && !text.is_empty()
    {
        schema.insert("description".to_owned(), text.into());
    }
}

/// What may be written, where the schema's own words do not say it.
fn allowed(value: &Value) -> String {
    let example = match value {
        Value::Text(form) => format!("a text: {form}"),
        Value::Texts(form) => format!("an array of texts: {form}"),
        Value::Duration(min, max) => range(&duration(*min), &duration(*max)),
        Value::Count(min, max) => range(&min.to_string(), &max.to_string()),
        Value::Size(min, max) => range(&spell_size(*min), &spell_size(*max)),
        Value::Secret => "\"env:NAME\", \"file:PATH\" or the secret itself".to_owned(),
        Value::Secrets => "an array of \"env:NAME\", \"file:PATH\" or secrets".to_owned(),
        _ => return String::new(),
    };
    format!(" Write {example}.")
}

fn range(min: &str, max: &str) -> String {
    format!("{min} to {max}")
}

fn duration(duration: Duration) -> String {
    format!("\"{}\"", spell(duration))
}

fn when_absent(default: Default) -> String {
    match default {
        Default::Required(_) => " Required.".to_owned(),
        Default::Computed(words) => format!(" Default: {}.", plain(words)),
        Default::Absent | Default::Is(_) => String::new(),
    }
}

/// The default as a file has it.
fn default(key: &ConfigKey) -> Option<Json> {
    let Default::Is(text) = key.default else {
        return None;
    };
    Some(match key.value {
        Value::Flag => (text == "true").into(),
        Value::Count(..) => text.parse::<u64>().map_or_else(|_| text.into(), Json::from),
        Value::Texts(_) => json!([text]),
        _ => text.into(),
    })
}

/// A text of the reference without its marks and without the targets of its links, which an editor cannot follow.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        out.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    let marks = ['`', '['];
    // Brackets of a heading such as [issuers.*] or of an array belong to the text.
    if text.contains("](") {
        out.retain(|c| !marks.contains(&c));
    } else {
        out.retain(|c| c != '`');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    #[test]
    fn the_file_has_what_the_list_has() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/cosgate.schema.json");
        let schema = format!("{:#}\n", schema());
        if env::var_os("COSGATE_WRITE_DOCS").is_some() {
            fs::write(&path, &schema).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == schema,
            "packaging/cosgate.schema.json is out of date: run COSGATE_WRITE_DOCS=1 cargo test --lib schema"
        );
    }

    #[test]
    fn every_key_of_every_table_is_a_property() {
        fn check(table: &'static ConfigTable, schema: &Json) {
            let schemas = match schema["anyOf"].as_array() {
                Some(of_kinds) => of_kinds.clone(),
                None => vec![schema.clone()],
            };
            for key in table.keys {
                let mut found = schemas.iter();
                let Some(found) = found.find_map(|one| one["properties"].get(key.name)) else {
                    panic!("{} is missing", key.name);
                };
                match key.value {
                    Value::Table(inner) => check(inner, found),
                    Value::Named(inner) => check(inner, &found["additionalProperties"]),
                    Value::Tables(inner) => check(inner, &found["items"]),
                    _ => assert!(found["description"].is_string(), "{}", key.name),
                }
            }
            for one in &schemas {
                assert_eq!(one["additionalProperties"], false);
            }
        }
        check(&ROOT, &schema());
    }

    #[test]
    fn a_description_has_no_marks() {
        for (text, expected) in [
            (
                "See [Grants](configuration-guide.md#grants), or `root`.",
                "See Grants, or root.",
            ),
            ("Files with `[issuers.*]`.", "Files with [issuers.*]."),
            ("", ""),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
