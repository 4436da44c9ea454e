//! The report: figures of all rounds, ratios to the ceilings of the same round, as a table and as a
//! file.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::cpu::Others;

/// A figure of each round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Drops the first round, which warms up the servers.
    pub(crate) fn warmed(mut self) -> Series {
        if self.0.len() > 1 {
            self.0.remove(0);
        }
        self
    }

    /// Returns the median.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ((sorted.len().max(1) - 1) / 2, sorted.len() / 2);
        match (sorted.get(low), sorted.get(high)) {
            (Some(low), Some(high)) => f64::midpoint(*low, *high),
            _ => f64::NAN,
        }
    }

    fn min(&self) -> f64 {
        percentile(&self.0, 0.0)
    }

    fn max(&self) -> f64 {
        percentile(&self.0, 1.0)
    }
}

/// Returns a percentile of a sample; `NaN` if the sample is empty.
pub(crate) fn percentile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len().max(1) - 1) as f64 * share).round();
    sorted.get(place as usize).copied().unwrap_or(f64::NAN)
}

/// The goal for a ratio, or for a value without a ceiling.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// No goal.
    None,
}

impl Goal {
    fn text(self) -> String {
        match self {
            Goal::AtLeast(bound) => format!(">= {bound}"),
            Goal::AtMost(bound) => format!("<= {bound}"),
            Goal::None => String::new(),
        }
    }

    fn met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtLeast(bound) => Some(value >= bound),
            Goal::AtMost(bound) => Some(value <= bound),
            Goal::None => None,
        }
    }
}

/// A line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) value: Series,
    /// The ceiling of each round; `None` for figures without a ceiling.
    pub(crate) ceiling: Option<Series>,
    pub(crate) goal: Goal,
    /// Cores that other programs used while the figure was measured.
    others: Option<f64>,
}

impl Row {
    /// Builds the line of a figure with a ceiling.
    pub(crate) fn against(
        name: impl Into<String>,
        unit: &'static str,
        value: Series,
        ceiling: Series,
        goal: Goal,
    ) -> Row {
        Row {
            name: name.into(),
            unit,
            value: value.warmed(),
            ceiling: Some(ceiling.warmed()),
            goal,
            others: None,
        }
    }

    /// Builds the line of a figure without a ceiling.
    pub(crate) fn alone(
        name: impl Into<String>,
        unit: &'static str,
        value: Series,
        goal: Goal,
    ) -> Row {
        Row {
            name: name.into(),
            unit,
            value,
            ceiling: None,
            goal,
            others: None,
        }
    }

    /// Builds the line of a single value without a ceiling.
    pub(crate) fn once(name: String, unit: &'static str, value: f64, goal: Goal) -> Row {
        Row::alone(name, unit, Series(vec![value]), goal)
    }

    /// Returns the ratio of value to ceiling in each round.
    fn ratio(&self) -> Option<Series> {
        let ceiling = self.ceiling.as_ref()?;
        let ratios = self.value.0.iter().zip(&ceiling.0);
        Some(Series(
            ratios.map(|(value, ceiling)| value / ceiling).collect(),
        ))
    }

    fn met(&self) -> Option<bool> {
        let ratio = self.ratio();
        self.goal
            .met(ratio.as_ref().unwrap_or(&self.value).median())
    }

    fn json(&self) -> Value {
        let spread = |series: &Series| json!([series.min(), series.max()]);
        let ratio = self.ratio();
        json!({
            "name": self.name,
            "value": self.value.median(),
            "spread": spread(&self.value),
            "unit": self.unit,
            "ceiling": self.ceiling.as_ref().map(Series::median),
            "ceiling_spread": self.ceiling.as_ref().map(spread),
            "ratio": ratio.as_ref().map(Series::median),
            "ratio_spread": ratio.as_ref().map(spread),
            "rounds": self.value.0.len(),
            "goal": self.goal.text(),
            "met": self.met(),
            "cores_of_others": self.others,
        })
    }
}

/// The lines of a report.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    others: Others,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            rows: Vec::new(),
            others: Others::watch(),
        }
    }
}

impl Report {
    /// Adds lines that were measured since the last call, or since the creation of the report.
    pub(crate) fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        let others = self.others.cores();
        self.rows.extend(rows.into_iter().map(|row| Row {
            others: Some(others),
            ..row
        }));
        self.others = Others::watch();
    }

    /// Returns the lines that missed their goal.
    pub(crate) fn missed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.met() == Some(false))
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "figure",
            "median (min - max)",
            "unit",
            "ceiling (min - max)",
            "ratio (min - max)",
            "others",
            "goal",
            "",
        ]);
        for column in 1..6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &self.rows {
            let verdict = match row.met() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            table.add_row([
                row.name.clone(),
                spread(&row.value),
                row.unit.to_owned(),
                row.ceiling.as_ref().map(spread).unwrap_or_default(),
                row.ratio().as_ref().map(spread).unwrap_or_default(),
                row.others.map(number).unwrap_or_default(),
                row.goal.text(),
                verdict.to_owned(),
            ]);
        }
        table
    }

    /// Writes all lines as JSON.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        Ok(std::fs::write(path, serde_json::to_string_pretty(&rows)?)?)
    }
}

fn spread(series: &Series) -> String {
    let [median, min, max] = [series.median(), series.min(), series.max()].map(number);
    if series.0.len() < 2 {
        return median;
    }
    format!("{median} ({min} - {max})")
}

/// Formats a number with its significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => {
            let mut digits = format!("{value:.0}");
            for place in (1..digits.len().div_ceil(3))
                .map(|group| digits.len() - 3 * group)
                .collect::<Vec<_>>()
            {
                digits.insert(place, ',');
            }
            digits
        }
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series(values.to_vec())
    }

    #[test]
    fn ratios_are_of_the_same_round_and_the_first_round_does_not_count() {
        let (value, ceiling) = (
            series(&[1.0, 50.0, 60.0, 10.0]),
            series(&[100.0, 100.0, 100.0, 10.0]),
        );
        let row = Row::against("drain", "pushes/s", value, ceiling, Goal::AtLeast(0.6));
        let ratio = row.ratio().unwrap();
        assert_eq!((ratio.min(), ratio.median(), ratio.max()), (0.5, 0.6, 1.0));
        assert_eq!(row.met(), Some(true));
        let json = row.json();
        assert_eq!(
            (&json["goal"], &json["met"], &json["rounds"]),
            (&json!(">= 0.6"), &json!(true), &json!(3))
        );
    }

    #[test]
    fn a_missed_goal_is_reported() {
        let mut report = Report::default();
        report.add([
            Row::alone("memory", "MiB", series(&[120.0]), Goal::AtMost(100.0)),
            Row::alone("figure", "ms", series(&[1.0]), Goal::None),
        ]);
        let missed: Vec<&str> = report.missed().map(|row| row.name.as_str()).collect();
        assert_eq!(missed, ["memory"]);
        assert!(report.table().to_string().contains("MISSED"));
    }

    #[test]
    fn numbers_have_only_significant_digits() {
        let texts: Vec<String> = [0.656, 12.34, 123.4, 1234.5, 1_234_567.0]
            .map(number)
            .to_vec();
        assert_eq!(texts, ["0.66", "12.3", "123", "1,234", "1,234,567"]);
    }
}
