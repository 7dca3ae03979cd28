//! From a JSON description of an item to attribute tokens.

use serde_json::Value;

/// Calls `each` with every token of `json`.
///
/// An array gives its elements, nested arrays flattened; an object gives `key=value`, nested objects
/// `outer.inner=value`, and an array under a key one token an element. Strings stand for themselves, numbers and
/// booleans as JSON writes them; null gives nothing.
pub(super) fn each_token(json: &Value, each: &mut impl FnMut(&str)) {
    walk(json, &mut String::new(), each);
}

fn walk(json: &Value, key: &mut String, each: &mut impl FnMut(&str)) {
    match json {
        Value::Null => {}
        Value::String(text) => emit(key, text, each),
        Value::Bool(_) | Value::Number(_) => emit(key, &json.to_string(), each),
        Value::Array(values) => values.iter().for_each(|value| walk(value, key, each)),
        Value::Object(fields) => {
            let length = key.len();
            for (name, value) in fields {
                if length > 0 {
                    key.push('.');
                }
                key.push_str(name);
                walk(value, key, each);
                key.truncate(length);
            }
        }
    }
}

fn emit(key: &mut String, value: &str, each: &mut impl FnMut(&str)) {
    let length = key.len();
    if length == 0 {
        return each(value);
    }
    key.push('=');
    key.push_str(value);
    each(key);
    key.truncate(length);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tokens(json: &str) -> Vec<String> {
        let mut all = Vec::new();
        each_token(&serde_json::from_str(json).unwrap(), &mut |token| all.push(token.to_owned()));
        all
    }

    #[test]
    fn arrays_flatten_and_objects_keep_their_path() {
        assert_eq!(tokens(r#"["a", ["b", [7]], null, true]"#), ["a", "b", "7", "true"]);
        assert_eq!(tokens(r#"{"brand": "x", "tags": ["a", "b"]}"#), ["brand=x", "tags=a", "tags=b"]);
        assert_eq!(tokens(r#"{"size": {"eu": 42, "us": null}}"#), ["size.eu=42"]);
        assert_eq!(tokens(r#"[{"role": "actor", "name": "k"}, "plain"]"#), ["name=k", "role=actor", "plain"]);
        assert_eq!(tokens("\"alone\""), ["alone"]);
        assert!(tokens("{}").is_empty() && tokens("null").is_empty() && tokens("[]").is_empty());
    }
}
