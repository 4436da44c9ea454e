//! Output of the client: tables and lines for people.

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde_json::Value;

use super::api::Failure;

/// Writes a line to standard output. A closed pipe (`| head`) counts as success.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("can't write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Formats a table with a header line.
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

/// The `items` of a list of the API.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.get("items")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Formats a field for people; `-` if missing.
pub(crate) fn field(object: &Value, name: &str) -> String {
    match object.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Shortens a digest to 12 hexadecimal digits, as most tools do. JSON has the full digest.
pub(crate) fn short(digest: &str) -> String {
    match digest.split_once(':') {
        Some((algorithm, hex)) => format!("{algorithm}:{}", hex.get(..12).unwrap_or(hex)),
        None => digest.to_owned(),
    }
}

/// The line below a list that was cut at the limit; otherwise empty.
pub(crate) fn more(list: &Value) -> &'static str {
    match list.get("next") {
        Some(Value::String(_)) => "\n… there are more: raise --limit",
        _ => "",
    }
}
