//! A report as comma-separated values.

use serde_json::Value;

use crate::operations::reports::Answer;

/// Writes a header, and a line for each row.
pub(super) fn write(answer: &Answer) -> String {
    let names = answer.columns.iter().map(|column| column.name.to_owned());
    let mut text = line(names);
    for item in &answer.items {
        let cells = answer.columns.iter().map(|column| item.get(column.name));
        text += &line(cells.map(|value| cell(value.unwrap_or(&Value::Null))));
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(",") + "\r\n"
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
        other => return other.to_string(),
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
        ] {
            assert_eq!(cell(&value), expected);
        }
    }
}
