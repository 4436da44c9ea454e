//! Small real images, built in memory.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tagtrail_proto::Digest;

/// An image for a push. Equal contents give equal digests.
#[derive(Debug, Clone)]
pub struct TestImage {
    content: String,
    platforms: Vec<&'static str>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    settings: serde_json::Value,
    created_by: Option<String>,
}

impl TestImage {
    /// The build time of all test images.
    pub const CREATED: &'static str = "2026-03-03T13:58:00Z";

    /// Returns an image for one platform with this text as its content.
    #[must_use]
    pub fn new(content: &str) -> TestImage {
        TestImage {
            content: content.to_owned(),
            platforms: vec!["amd64"],
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            settings: serde_json::json!({}),
            created_by: None,
        }
    }

    /// Returns an index of images for two platforms.
    #[must_use]
    pub fn index(content: &str) -> TestImage {
        TestImage {
            platforms: vec!["amd64", "arm64"],
            ..TestImage::new(content)
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> TestImage {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation to the manifest or index that a tag will point to.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> TestImage {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets the settings of the config beside its labels, such as `Env`.
    #[must_use]
    pub fn settings(mut self, settings: serde_json::Value) -> TestImage {
        self.settings = settings;
        self
    }

    /// Adds a history to the config: a setting, and this command, which created the layer.
    #[must_use]
    pub fn created_by(mut self, command: &str) -> TestImage {
        self.created_by = Some(command.to_owned());
        self
    }

    /// Writes the image as an OCI layout. Returns the digest that a tag will have after a push.
    pub(crate) fn write(&self, folder: &Path) -> Digest {
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        let manifests: Vec<serde_json::Value> = self
            .platforms
            .iter()
            .map(|platform| self.write_manifest(folder, platform))
            .collect();
        let top = if let [only] = manifests.as_slice() {
            only.clone()
        } else {
            let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": self.annotations });
            blob(folder, index.to_string().as_bytes(), INDEX)
        };
        std::fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        let layout = serde_json::json!({ "schemaVersion": 2, "manifests": [top] });
        std::fs::write(folder.join("index.json"), layout.to_string()).unwrap();
        top["digest"].as_str().unwrap().parse().unwrap()
    }

    fn write_manifest(&self, folder: &Path, platform: &str) -> serde_json::Value {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(self.content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, "content", self.content.as_bytes())
            .unwrap();
        let layer = archive.into_inner().unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&layer).unwrap();
        let mut config = serde_json::json!({
            "architecture": platform,
            "os": "linux",
            "created": TestImage::CREATED,
            "config": self.settings,
            "rootfs": { "type": "layers", "diff_ids": [Digest::sha256_of(&layer)] },
        });
        config["config"]["Labels"] = serde_json::json!(self.labels);
        if let Some(command) = &self.created_by {
            config["history"] = serde_json::json!([
                { "created_by": "ENV A=B", "empty_layer": true },
                { "created_by": command },
            ]);
        }
        let mut manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob(folder, config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json"),
            "layers": [blob(folder, &packed.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip")],
        });
        if self.platforms.len() == 1 {
            manifest["annotations"] = serde_json::json!(self.annotations);
        }
        let mut descriptor = blob(folder, manifest.to_string().as_bytes(), MANIFEST);
        descriptor["platform"] = serde_json::json!({ "architecture": platform, "os": "linux" });
        descriptor
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes a blob and returns its descriptor.
fn blob(folder: &Path, content: &[u8], media_type: &str) -> serde_json::Value {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    std::fs::write(folder.join("blobs/sha256").join(&hex), content).unwrap();
    serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len() })
}
