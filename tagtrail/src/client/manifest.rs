//! `tagtrail manifest`.

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::digest::digest_of;
use super::print::field;
use super::screen::Screen;
use super::table::{Column, table};

/// Arguments of `tagtrail manifest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Manifest {
    /// The digest: whole (sha256:…), or its first six hex digits or more. Of an image: its present
    /// digest.
    digest: String,
}

impl Manifest {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let digest = digest_of(api, &self.digest).await?;
        let json = api.get(&["manifests", &digest], &[]).await?;
        let text = describe(&json, screen);
        Ok(Printable { json, text })
    }
}

pub(super) fn describe(manifest: &Value, screen: &Screen) -> String {
    let platforms = manifest.get("platforms").and_then(Value::as_array);
    let platforms: Vec<String> = platforms.into_iter().flatten().map(platform).collect();
    let read_from = format!(
        "{}/{}",
        field(manifest, "registry"),
        field(manifest, "repository")
    );
    let mut rows = vec![
        ["platforms".to_owned(), platforms.join(", ")],
        ["read from".to_owned(), read_from],
    ];
    for name in [
        "media_type",
        "artifact_type",
        "size",
        "created",
        "source",
        "revision",
        "version",
    ] {
        let value = field(manifest, name);
        let value = match name {
            "created" => screen.time(&value),
            _ => value,
        };
        rows.push([name.replace('_', " "), value]);
    }
    if manifest.get("tombstone") == Some(&Value::Bool(true)) {
        let meaning = "yes: made up by a client in order to delete a tag; never rolled out";
        rows.push(["tombstone".to_owned(), meaning.to_owned()]);
    }
    for (kind, name) in [("labels", "label"), ("annotations", "annotation")] {
        let texts = manifest.get(kind).and_then(Value::as_object);
        for (key, value) in texts.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            rows.push([format!("{name} {key}"), value.to_owned()]);
        }
    }
    let digest = screen.digest(&field(manifest, "digest"));
    let columns = [Column::name("MANIFEST"), Column::text(digest)];
    table(screen, columns, rows)
}

/// Formats a platform: `linux/arm64/v8`, `windows/amd64:10.0.20348.2113`.
fn platform(platform: &Value) -> String {
    let parts = ["os", "architecture", "variant"].map(|name| field(platform, name));
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| *part != "-")
        .collect();
    let version = platform.get("os_version").and_then(Value::as_str);
    let version = version.map_or_else(String::new, |version| format!(":{version}"));
    parts.join("/") + &version
}
