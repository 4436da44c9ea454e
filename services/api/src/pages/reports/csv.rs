//! A report as comma-separated values.

use serde_json::Value;

use crate::http::csv::line;
use crate::operations::reports::Answer;

/// Writes a header, and a line for each row.
pub(super) fn write(answer: &Answer) -> String {
    let names = answer.columns.iter().map(|column| Value::from(column.name));
    let mut text = line(names.collect::<Vec<_>>().iter());
    for item in &answer.items {
        let cells = answer.columns.iter().map(|column| item.get(column.name));
        text += &line(cells.map(|value| value.unwrap_or(&Value::Null)));
    }
    text
}
