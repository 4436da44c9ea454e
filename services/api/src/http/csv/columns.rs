//! The columns of a list, from the schema of its items: each page of a list has the same ones.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::http::operation::ResponseBody;

/// Deepest object whose fields have columns of their own. A deeper one is JSON in its cell.
const DEEPEST: usize = 4;
/// The list of an answer that `format=csv` writes if no other one is named.
pub(super) const ITEMS: &str = "items";

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// The fields that lead to the value, with dots between them.
    pub(crate) name: String,
    /// The place of the value in an item, as a JSON Pointer (RFC 6901).
    pub(crate) pointer: String,
}

/// A list of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    /// The field that has the list.
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
}

/// Returns the lists of an answer with `items`, which come first; else none. The fields of the
/// items of each list are known.
pub(crate) fn lists(response: &ResponseBody) -> Vec<List> {
    let ResponseBody::Json(schema) = response else {
        return Vec::new();
    };
    let mut schemas = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator();
    let schema = schema(&mut schemas).to_value();
    let definitions = schemas.take_definitions(true);
    let answer = resolved(&schema, &definitions);
    let fields = answer["properties"].as_object();
    let lists = fields.into_iter().flatten().map(|(name, field)| {
        let mut columns = Vec::new();
        if field["type"] == "array" {
            add(&field["items"], &definitions, None, 1, &mut columns);
        }
        let name = name.clone();
        List { name, columns }
    });
    let mut lists: Vec<List> = lists.filter(|list| !list.columns.is_empty()).collect();
    lists.sort_by_key(|list| (list.name != ITEMS, list.name.clone()));
    match lists.first() {
        Some(first) if first.name == ITEMS => lists,
        _ => Vec::new(),
    }
}

/// Follows a reference, and takes the schema of a value that may be null.
fn resolved<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|text| text.rsplit('/').next())
    {
        return definitions.get(name).unwrap_or(&Value::Null);
    }
    let variants = schema["anyOf"].as_array().map_or(&[][..], Vec::as_slice);
    match variants {
        [one, null] if null["type"] == "null" => resolved(one, definitions),
        _ => schema,
    }
}

/// Adds the columns of an object, in the order of its fields.
fn add(
    schema: &Value,
    definitions: &Map<String, Value>,
    above: Option<&Column>,
    depth: usize,
    columns: &mut Vec<Column>,
) {
    let schema = resolved(schema, definitions);
    let fields = schema["properties"]
        .as_object()
        .filter(|_| depth <= DEEPEST);
    let Some(fields) = fields else {
        columns.extend(above.cloned());
        return;
    };
    // An object has no order, the list of required fields has that of the type.
    let required = schema["required"].as_array().into_iter().flatten();
    let required: Vec<&str> = required.filter_map(Value::as_str).collect();
    let others = fields.keys().map(String::as_str);
    let others = others.filter(|field| !required.contains(field));
    for field in required.iter().copied().chain(others) {
        let column = match above {
            None => Column {
                name: field.to_owned(),
                pointer: format!("/{field}"),
            },
            Some(above) => Column {
                name: format!("{}.{field}", above.name),
                pointer: format!("{}/{field}", above.pointer),
            },
        };
        add(
            &fields[field],
            definitions,
            Some(&column),
            depth + 1,
            columns,
        );
    }
}
