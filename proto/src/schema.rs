//! JSON Schemas (2020-12) of the messages, generated from the types. `cargo run -p tagtrail-proto --example schemas` writes
//! them to `proto/schemas`; a test compares.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::{Event, Manifest, Push, Quarantined, Revision, Rollout};

/// Every schema, by the name of its file.
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
    // As serialised: every field is always present.
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

/// The text of a schema's file.
///
/// # Errors
/// None in practice: a schema is plain JSON.
pub fn text(schema: &Schema) -> serde_json::Result<String> {
    serde_json::to_string_pretty(schema).map(|text| text + "\n")
}
