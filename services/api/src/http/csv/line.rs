//! A line of comma-separated values (RFC 4180).

use serde_json::Value;

/// Writes the line of the names.
pub(crate) fn header<'a>(names: impl Iterator<Item = &'a str>) -> String {
    line(names.map(Value::from).collect::<Vec<_>>().iter())
}

/// Writes a line. A list or an object is JSON in its cell.
pub(crate) fn line<'a>(cells: impl Iterator<Item = &'a Value>) -> String {
    cells.map(cell).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Writes a value. Programs for tables take a text that begins with one of a few characters for a
/// formula: a quote before it prevents that.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => {
            format!("'{text}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.contains([',', '"', '\n', '\r', '\'']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_ends_its_line() {
        for (value, expected) in [
            (json!(null), ""),
            (json!(-3.5), "-3.5"),
            (json!(true), "true"),
            (json!("shop/web"), "shop/web"),
            (json!("=1+1"), "\"'=1+1\""),
            (json!("@x"), "\"'@x\""),
            (json!("a,\"b\"\r\nc"), "\"a,\"\"b\"\"\r\nc\""),
            (json!(["a", "b"]), "\"[\"\"a\"\",\"\"b\"\"]\""),
        ] {
            assert_eq!(cell(&value), expected);
        }
    }
}
