//! Lists as comma-separated values: with `format=csv`, each operation that answers with items
//! writes a line for each item instead of JSON.

mod columns;
mod line;

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LINK};
use axum::http::{HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use form_urlencoded::{Serializer, parse};
use serde_json::{Value, json};

pub(crate) use columns::{List, lists};
pub(crate) use line::{header, line};

use columns::ITEMS;

use crate::http::error::Error;
use crate::http::paging::CURSOR;
use crate::http::parameters::{Parameter, optional};

/// Names of the formats.
const FORMATS: [&str; 2] = ["json", "csv"];
/// Largest JSON answer that is rewritten, in bytes. A page of the largest list is smaller.
const LARGEST: usize = 64 << 20;

pub(crate) const FORMAT: Parameter = optional(
    "format",
    "`csv`: the items of this page as comma-separated values, with a header. A field of an object has a column of its own (`object.field`), a list is JSON in one cell. The header `Link` leads to the next page (`rel=\"next\"`). A text that begins with `=`, `+`, `-` or `@` gets a `'` before it, since programs for tables take it for a formula.",
    "csv",
    || json!({ "type": "string", "enum": FORMATS, "default": FORMATS[0] }),
);
pub(crate) const LIST: Parameter = optional(
    "list",
    "With `format=csv`, the list of the answer that is written: `items`, or another field that is a list of objects, such as `not_compared`.",
    ITEMS,
    || json!({ "type": "string", "default": ITEMS }),
);
/// Problem of an unknown format or list.
pub(crate) const PROBLEM: (u16, &str) = (400, "choice_invalid");

/// Answers in the format that the query asks for. The operation sees the query without the format.
pub(crate) async fn in_format(
    State(lists): State<Arc<[List]>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let asked = request.uri().clone();
    let query = asked.query().unwrap_or_default();
    // An operation with one list knows no parameter of this name.
    let has_lists = lists.len() > 1;
    let own = |name: &str| name == FORMAT.name || has_lists && name == LIST.name;
    let (own, others): (Vec<_>, Vec<_>) = parse(query.as_bytes()).partition(|(name, _)| own(name));
    if own.is_empty() {
        return Ok(next.run(request).await);
    }
    let formats = FORMATS.map(str::to_owned).to_vec();
    let csv = choice(&own, FORMAT.name, &formats)? == 1;
    let names: Vec<String> = lists.iter().map(|list| list.name.clone()).collect();
    let list = lists.get(choice(&own, LIST.name, &names)?);
    *request.uri_mut() = with_query(
        &asked,
        others.iter().map(|(name, value)| (&**name, &**value)),
    )?;
    let response = next.run(request).await;
    if !csv || !response.status().is_success() {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, LARGEST).await.map_err(internal)?;
    let answer: Value = serde_json::from_slice(&body).map_err(internal)?;
    let text = list.map_or_else(String::new, |list| write(list, &answer));
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
    );
    if let Some(cursor) = answer["next"].as_str() {
        let kept = others.iter().filter(|(name, _)| name != CURSOR.name);
        let kept = kept.map(|(name, value)| (&**name, &**value));
        let pairs = kept.chain([(FORMAT.name, FORMATS[1]), (CURSOR.name, cursor)]);
        let next = with_query(&asked, pairs)?;
        let link = HeaderValue::try_from(format!("<{next}>; rel=\"next\""));
        parts.headers.insert(LINK, link.map_err(internal)?);
    }
    Ok((parts, text).into_response())
}

/// Returns the place of the word that a parameter names; the first one without the parameter.
fn choice(
    given: &[(Cow<'_, str>, Cow<'_, str>)],
    parameter: &'static str,
    words: &[String],
) -> Result<usize, Error> {
    let mut values = given.iter().filter(|(name, _)| name == parameter);
    let value = values.next().map(|(_, value)| value.as_ref());
    if values.next().is_some() {
        return Err(Error::ParameterRepeated(parameter));
    }
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(0);
    };
    let found = words.iter().position(|word| word == value);
    found.ok_or_else(|| Error::Choice {
        parameter,
        choices: words.to_vec(),
    })
}

fn internal(error: impl Into<axum::BoxError>) -> Error {
    Error::NotRewritten(error.into())
}

/// Returns the path with these parameters.
fn with_query<'a>(
    uri: &Uri,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Uri, Error> {
    let query = Serializer::new(String::new()).extend_pairs(pairs).finish();
    let text = match query.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{query}", uri.path()),
    };
    text.parse().map_err(internal)
}

/// Writes the header, and a line for each item.
fn write(list: &List, answer: &Value) -> String {
    let columns = &list.columns;
    let mut text = header(columns.iter().map(|column| column.name.as_str()));
    for item in answer[&list.name].as_array().into_iter().flatten() {
        let cells = columns.iter().map(|column| item.pointer(&column.pointer));
        text += &line(cells.map(|cell| cell.unwrap_or(&Value::Null)));
    }
    text
}

#[cfg(test)]
mod tests;
