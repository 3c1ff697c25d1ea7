//! `${NAME}` in any text of the configuration becomes the value of that environment variable, so that
//! secrets stay out of the file. `$${` writes a literal `${`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::section::ConfigError;

/// Replaces every `${NAME}` below `value`; a name that is not set or not closed is an error at its
/// place, and the value counts as absent, so that one mistake is one error.
pub(super) fn replace(
    value: &mut Value,
    path: &str,
    env: &BTreeMap<String, String>,
    errors: &mut Vec<ConfigError>,
) {
    match value {
        Value::String(text) => match expand(text, env) {
            Ok(expanded) => *text = expanded,
            Err(message) => {
                errors.push(ConfigError { path: path.to_owned(), message });
                *value = Value::Null;
            }
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                replace(item, &format!("{path}[{index}]"), env, errors);
            }
        }
        Value::Object(object) => {
            for (key, item) in object {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                replace(item, &below, env, errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            expanded.push_str(literal);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let Some((name, next)) = after.split_once('}') else {
            return Err("\"${\" without \"}\"; write \"$${\" for a literal one".to_owned());
        };
        let Some(value) = env.get(name) else {
            return Err(format!("the environment variable {name} is not set"));
        };
        expanded.push_str(value);
        rest = next;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_replaced_at_any_depth_and_missing_ones_are_named_with_their_place() {
        let env = BTreeMap::from([("A".to_owned(), "secret".to_owned())]);
        let mut value =
            json!({"P": "x${A}y${A}", "L": [{"Q": "${MISSING}"}], "R": "a$${A}", "S": "${A"});
        let mut errors = Vec::new();
        replace(&mut value, "", &env, &mut errors);
        assert_eq!(value["P"], "xsecretysecret");
        assert_eq!(value["R"], "a${A}");
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "L[0].Q: the environment variable MISSING is not set",
                "S: \"${\" without \"}\"; write \"$${\" for a literal one",
            ]
        );
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        let env = BTreeMap::from([("A".to_owned(), "${A}".to_owned())]);
        assert_eq!(expand("${A}", &env), Ok("${A}".to_owned()));
    }
}
