//! JSON Schema of the file, from the catalogue, for editors.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::keys;
use crate::config::keys::Key;
use crate::config::keys::Kind;

/// Draft 2020-12.
pub(super) fn schema() -> Value {
    let mut root = table("");
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("Vestibule's proxy.toml"));
    }
    root
}

fn table(name: &str) -> Value {
    let mut properties = Map::new();
    let mut required: Vec<&str> = keys::of(name).filter(|key| is_required(key)).map(|key| key.key).collect();
    if name.is_empty() {
        required = vec!["listen", "tls", "site"];
    }
    for key in keys::of(name) {
        properties.insert(key.key.to_owned(), property(name, key));
    }
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn is_required(key: &Key) -> bool {
    key.doc.ends_with("required.")
}

fn property(table_name: &str, key: &Key) -> Value {
    let inner = if table_name.is_empty() { key.key.to_owned() } else { format!("{table_name}.{}", key.key) };
    let mut schema = of_kind(key.kind, &inner);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), json!(key.doc));
        if let Some(default) = default(key) {
            schema.insert("default".to_owned(), default);
        }
    }
    schema
}

/// The default, if it is a value and not a word about one.
fn default(key: &Key) -> Option<Value> {
    serde_json::from_str(key.default).ok()
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
        Kind::Choice(words) => json!({ "enum": words }),
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
