//! Lists that the API returns in pages.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{items, warning};
use super::screen::{Output, Screen};

/// Most rows that are counted after those that a table shows.
const COUNTED: usize = 10_000;

/// Arguments of the commands that print a list.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Paging {
    /// Most rows to list.
    #[arg(long, default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Go on after an earlier list: its `next` in JSON.
    #[arg(long, value_name = "NEXT")]
    cursor: Option<String>,
}

impl Paging {
    /// Reads the list. For a table, the answer has in `left` the number of rows that it leaves out.
    pub(crate) async fn list(
        &self,
        api: &Api,
        screen: &Screen,
        path: &[&str],
        query: &[(&str, Option<String>)],
    ) -> Result<Value, Failure> {
        let mut found = api.list(path, query, self.limit, self.cursor.clone()).await;
        if let (Some(cursor), Err(failure)) = (&self.cursor, &found)
            && failure.problem == "cursor_invalid"
        {
            warning(&format!(
                "--cursor {cursor:?} is not the `next` of this list: the list begins with its first row"
            ));
            found = api.list(path, query, self.limit, None).await;
        }
        let mut list = found?;
        if let (Some(next), true) = (list["next"].as_str(), screen.output != Output::Json) {
            let next = Some(next.to_owned());
            let rest = api.list(path, query, COUNTED + 1, next).await?;
            list["left"] = items(&rest).len().into();
        }
        Ok(list)
    }
}

/// Returns the line below a table that leaves rows out; otherwise nothing.
pub(crate) fn more(list: &Value) -> String {
    match list.get("left").and_then(Value::as_u64) {
        None | Some(0) => String::new(),
        Some(left) if left > COUNTED as u64 => {
            format!("\n… more than {COUNTED} more: raise --limit")
        }
        Some(left) => format!("\n… {left} more: raise --limit"),
    }
}

/// Parses the value of `--limit`.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=100_000) => Ok(limit),
        _ => Err("must be a number from 1 to 100000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_that_are_left_out_are_numbered() {
        for (left, line) in [
            (json!(70), "\n… 70 more: raise --limit"),
            (json!(10_000), "\n… 10000 more: raise --limit"),
            (json!(10_001), "\n… more than 10000 more: raise --limit"),
            (json!(null), ""),
        ] {
            assert_eq!(more(&json!({ "left": left })), line);
        }
    }
}
