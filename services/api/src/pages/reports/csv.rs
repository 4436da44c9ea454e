//! A report as comma-separated values.

use serde_json::{Map, Value};
use tagtrail_history::reports::Report;

use crate::http::csv::{header, line};
use crate::operations::reports::Format;

/// A report as a header, and a line for each row.
pub(super) struct Csv(pub(super) &'static Report);

impl Format for Csv {
    fn begin(&self) -> String {
        header(self.0.columns.iter().map(|(name, _)| *name))
    }

    fn row(&mut self, text: &mut String, item: &Map<String, Value>) {
        let cells = self.0.columns.iter().map(|(name, _)| item.get(*name));
        *text += &line(cells.map(|value| value.unwrap_or(&Value::Null)));
    }

    fn end(&self) -> &'static str {
        ""
    }
}
