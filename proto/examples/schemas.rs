//! Writes the JSON Schemas of the messages to `proto/schemas`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (file, schema) in tagtrail_proto::schema::all() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("schemas")
            .join(file);
        std::fs::write(path, tagtrail_proto::schema::text(&schema)?)?;
    }
    Ok(())
}
