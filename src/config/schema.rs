//! JSON Schema of the file, from the catalogue, for editors.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::keys;
use crate::config::keys::Key;
use crate::config::keys::Kind;
use crate::config::rules;

/// Draft 2020-12.
pub(super) fn schema() -> Value {
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("Vestibule's proxy.toml"));
    if let Value::Object(table) = table("") {
        root.extend(table);
    }
    Value::Object(root)
}

fn table(name: &str) -> Value {
    let mut properties = Map::new();
    let mut required: Vec<&str> = keys::of(name).filter(|key| key.is_required()).map(|key| key.key).collect();
    if name.is_empty() {
        required = vec!["listen", "tls", "site"];
    }
    for key in keys::of(name) {
        properties.insert(key.key.to_owned(), property(name, key));
    }
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn property(table_name: &str, key: &Key) -> Value {
    let inner = if table_name.is_empty() { key.key.to_owned() } else { format!("{table_name}.{}", key.key) };
    let mut schema = of_kind(key.kind, &inner);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), json!(key.doc));
        if let Some(default) = value(key.default) {
            schema.insert("default".to_owned(), default);
        } else if let Some(example) = value(keys::example(key)) {
            schema.insert("examples".to_owned(), json!([example]));
        }
    }
    schema
}

/// A default or example, if it is written as in JSON and not a word about one.
fn value(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn of_kind(kind: Kind, inner: &str) -> Value {
    let duration = json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$" });
    let size = json!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)?$" });
    let off = json!({ "const": "off" });
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => one_or_more(&json!({ "type": "string" })),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number => json!({ "type": "integer", "minimum": 0 }),
        Kind::Statuses => one_or_more(&json!({ "type": "integer", "minimum": 100, "maximum": 599 })),
        Kind::Duration => duration,
        Kind::DurationOrOff => json!({ "anyOf": [duration, off] }),
        Kind::Size => size,
        Kind::SizeOrOff => json!({ "anyOf": [size, off] }),
        Kind::Limit => json!({ "anyOf": [{ "type": "string", "pattern": "^[0-9]+ in ([0-9]+(ms|s|m|h|d))+$" }, off] }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Rules => one_or_more(&json!({ "enum": rules::relaxable() })),
        Kind::Table => inner_table(inner),
        Kind::Tables => one_or_more(&inner_table(inner)),
        Kind::Free => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Any if inner == "site.headers.hsts" => json!({ "anyOf": [duration, off, table(inner)] }),
        Kind::Any => json!({}),
    }
}

/// A table whose keys are not listed may hold anything: nothing reads it yet.
fn inner_table(inner: &str) -> Value {
    if keys::of(inner).next().is_none() { json!({ "type": "object" }) } else { table(inner) }
}

fn one_or_more(item: &Value) -> Value {
    json!({ "anyOf": [item, { "type": "array", "items": item }] })
}
