//! Output of the client: lines, and the fields of the API's answers.

use std::io::Write as _;

use serde_json::Value;
use tagtrail_proto::clean_text;

use super::api::Failure;
use super::table::fold;

/// Writes a line to standard output. A closed pipe (`| head`) counts as success.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("can't write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a text beside the output, to standard error.
pub(crate) fn aside(text: &str) {
    // If standard error is closed, there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Writes an error to standard error. On a terminal the mark is red, and lines wrap between words.
pub(crate) fn error(message: &str) {
    marked("error:", "1;31", message);
}

/// Writes a warning to standard error, with a yellow mark on a terminal.
pub(crate) fn warning(message: &str) {
    marked("warning:", "1;33", message);
}

fn marked(mark: &str, colour: &str, message: &str) {
    let width = comfy_table::Table::new().use_stderr().width();
    let text = fold(&format!("{mark} {message}"), width, 2);
    let message = text.strip_prefix(mark).unwrap_or_default();
    // If standard error is closed, there is nobody to tell.
    let _ = writeln!(
        anstream::stderr(),
        "\u{1b}[{colour}m{mark}\u{1b}[0m{message}"
    );
}

/// Returns text of strangers as a terminal may have it: with its lines, and without other control
/// characters and characters that change how text looks. JSON, too, may hold them.
pub(crate) fn clean(text: &str) -> String {
    let lines = text.lines().map(|line| clean_text(line, usize::MAX));
    lines.collect::<Vec<_>>().join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_reaches_the_terminal_without_control_characters() {
        let body = "{\n  \"actor\": \"\u{9b}2J\u{7f}\u{202e}x\u{1b}[1m\"\n}";
        assert_eq!(
            clean(body),
            "{\n  \"actor\": \"\u{fffd}2J\u{fffd}\u{fffd}x\u{fffd}[1m\"\n}"
        );
    }
}
