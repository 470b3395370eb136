//! Fields of a document that are there and have no value. `mask:` and nothing behind it is a rule that somebody forgot to
//! write, and no wish for an order without one.

use serde_json::Value;

/// The paths of all fields without a value, such as `window.from`.
pub(super) fn empty_fields(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, "", &mut found);
    found
}

fn collect(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(path.to_owned()),
        Value::Array(all) => {
            for (place, value) in (1..).zip(all) {
                collect(value, &format!("{path}[{place}]"), found);
            }
        }
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, value) in fields {
                collect(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
