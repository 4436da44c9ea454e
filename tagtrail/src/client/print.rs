//! Arranging answers for people.

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde_json::Value;

use super::api::Failure;

/// Writes a line to standard output. A reader that has gone (`| head`) is no failure.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("can't write the answer: {error}")))
        }
        _ => Ok(()),
    }
}

/// A table with a line above it that names the columns.
pub(crate) fn table<const N: usize>(
    names: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names);
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(line.as_str())
                .trim_end()
                .to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The items of a list.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.get("items")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A field as people read it; `-` if there is none.
pub(crate) fn field(object: &Value, name: &str) -> String {
    match object.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A digest short enough for a line, as most tools show it; whole in JSON.
pub(crate) fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) => format!("{algorithm}:{}", hex.get(..12).unwrap_or(hex)),
        None => digest.to_owned(),
    }
}

/// What to say below a list that goes on.
pub(crate) fn more(list: &Value) -> &'static str {
    match list.get("next") {
        Some(Value::String(_)) => "\n… there is more: ask with a higher --limit",
        _ => "",
    }
}
