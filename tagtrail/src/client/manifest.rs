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
    contents(manifest, screen, &mut rows);
    let digest = screen.digest(&field(manifest, "digest"));
    let columns = [Column::name("MANIFEST"), Column::text(digest)];
    table(screen, columns, rows)
}

/// Adds the contents of the image, and those of the index, if they were read.
fn contents(manifest: &Value, screen: &Screen, rows: &mut Vec<[String; 2]>) {
    let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned();
    let mut add = |name: String, value: String| rows.push([name, value]);
    let index = manifest.get("index").unwrap_or(&Value::Null);
    for child in list(index, "children").unwrap_or_default() {
        let platform = child.get("platform").and_then(Value::as_str);
        let name = format!("manifest {}", platform.unwrap_or("without platform"));
        let digest = screen.digest(&field(&child, "digest"));
        add(name, format!("{digest}, {} bytes", field(&child, "size")));
    }
    left_out(index, "children", &mut add);
    let image = manifest.get("image").unwrap_or(&Value::Null);
    let Some(layers) = list(image, "layers") else {
        return;
    };
    if !index.is_null() {
        let digest = screen.digest(&field(image, "digest"));
        add(
            "image read".to_owned(),
            format!("{} {digest}", field(image, "platform")),
        );
    }
    add("size of layers".to_owned(), field(image, "size"));
    for (place, layer) in layers.iter().enumerate() {
        let digest = screen.digest(&field(layer, "digest"));
        let created_by = layer.get("created_by").and_then(Value::as_str);
        let created_by = created_by.map_or_else(String::new, |text| format!(": {text}"));
        let text = format!("{digest}, {} bytes{created_by}", field(layer, "size"));
        add(format!("layer {}", place + 1), text);
    }
    left_out(image, "layers", &mut add);
    let settings = image.get("settings").unwrap_or(&Value::Null);
    if settings.is_null() {
        return;
    }
    add("user".to_owned(), field(settings, "user"));
    for name in ["ports", "entrypoint", "command"] {
        let items = list(settings, name).unwrap_or_default();
        let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        add(name.to_owned(), items.join(" "));
    }
    let variables = settings.get("environment").and_then(Value::as_object);
    for (name, value) in variables.into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        add(format!("variable {name}"), value.to_owned());
    }
}

/// Adds the number of items that are missing in a list.
fn left_out(of: &Value, list: &str, add: &mut impl FnMut(String, String)) {
    let number = of.get(format!("{list}_left_out")).and_then(Value::as_u64);
    if let Some(number) = number.filter(|number| *number > 0) {
        add(format!("more {list}"), format!("{number} were left out"));
    }
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
