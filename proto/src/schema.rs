//! JSON Schemas (2020-12) of the messages, generated from the types.
//!
//! `cargo run -p tagtrail-proto --example schemas` writes the schemas to `proto/schemas`; a test
//! compares the files with the types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::{Event, Manifest, Push, Quarantined, Revision, Rollout};

/// Returns every schema, with the name of its file.
#[must_use]
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("push.json", schema_of::<Event<Push>>()),
        ("revision.json", schema_of::<Event<Revision>>()),
        ("rollout.json", schema_of::<Event<Rollout>>()),
        ("manifest.json", schema_of::<Event<Manifest>>()),
        ("quarantined.json", schema_of::<Quarantined>()),
    ]
}

fn schema_of<T: JsonSchema>() -> Schema {
    // For serialisation, where every field is always present.
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Returns the text of a schema's file.
///
/// # Errors
/// None in practice: a schema is plain JSON.
pub fn text(schema: &Schema) -> serde_json::Result<String> {
    serde_json::to_string_pretty(schema).map(|text| text + "\n")
}
