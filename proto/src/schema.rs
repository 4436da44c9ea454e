//! JSON Schemas (2020-12) of the messages, generated from the types.
//!
//! `cargo run -p tagtrail-proto --example schemas` writes the schemas to `proto/schemas`; a test
//! compares the files with the types.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::{ConditionChange, Event, Held, Manifest, Push, Quarantined, Revision, Rollout};

/// Returns every schema, with the name of its file.
#[must_use]
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("push.json", schema_of::<Event<Push>>()),
        ("revision.json", schema_of::<Event<Revision>>()),
        ("rollout.json", schema_of::<Event<Rollout>>()),
        ("hold.json", schema_of::<Event<Held>>()),
        ("trigger.json", schema_of::<Event<ConditionChange>>()),
        ("manifest.json", schema_of::<Event<Manifest>>()),
        ("quarantined.json", schema_of::<Quarantined>()),
    ]
}

fn schema_of<T: JsonSchema>() -> Schema {
    // For serialisation, where every field is always present.
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .with_transform(RecursiveTransform(plain_enum))
        .into_generator()
        .into_root_schema_for::<T>();
    plain_enum(&mut schema);
    schema
}

/// Writes an enum of words as `enum`. The derived schema of an enum whose variants are described is
/// `oneOf` of a `const` for each, which many generators of clients read as a union of types. The
/// descriptions of the variants are appended to the description of the enum.
pub fn plain_enum(schema: &mut Schema) {
    let Some(Value::Array(variants)) = schema.get("oneOf") else {
        return;
    };
    let (mut words, mut lines) = (Vec::new(), Vec::new());
    for variant in variants {
        match (variant.get("const"), variant.get("enum")) {
            (Some(word @ Value::String(text)), None) => {
                if let Some(described) = variant.get("description").and_then(Value::as_str) {
                    lines.push(format!("- `{text}`: {described}"));
                }
                words.push(word.clone());
            }
            // The variants without a description come as one `enum`.
            (None, Some(Value::Array(plain))) if plain.iter().all(Value::is_string) => {
                words.extend(plain.iter().cloned());
            }
            _ => return,
        }
    }
    let described = schema.get("description").and_then(Value::as_str);
    let paragraphs = [described.unwrap_or_default().to_owned(), lines.join("\n")];
    let paragraphs: Vec<String> = paragraphs
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), words.into());
    if !paragraphs.is_empty() {
        schema.insert("description".to_owned(), paragraphs.join("\n\n").into());
    }
}

/// Returns the text of a schema's file.
///
/// # Errors
/// None in practice: a schema is plain JSON.
pub fn text(schema: &Schema) -> serde_json::Result<String> {
    serde_json::to_string_pretty(schema).map(|text| text + "\n")
}
