mod bodies;
mod requests;
mod route;
mod written;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tagtrail_testkit::{Answer, Sink};

use super::*;
use crate::target::configure;
use crate::target::signature::signatures;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_bmV3LWtleS1mb3ItdGhlLXRlc3RzLW9ubHktMDE=";

/// A folder with `tagtrail.toml` and its secrets.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("old", OLD);
        folder.write("new", NEW);
        folder.write("token", "glpat-0123456789abcdef");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The file with one trigger whose target has these settings.
    fn file(&self, settings: &str) -> File {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n[trigger.target.webhook]\n{settings}\n"
        );
        File::parse(&text, &self.0.path().join("tagtrail.toml")).unwrap()
    }

    fn target(&self, settings: &str) -> Box<dyn Target> {
        let file = self.file(settings);
        configure(&file, &Clusters::default(), &file.trigger[0]).unwrap()
    }

    fn refused(&self, settings: &str) -> String {
        let file = self.file(settings);
        let refused = configure(&file, &Clusters::default(), &file.trigger[0]);
        let error = refused.err().unwrap().to_string();
        let place = format!(
            "{}:4: trigger.target.webhook: ",
            self.0.path().join("tagtrail.toml").display()
        );
        error.strip_prefix(&place).unwrap().to_owned()
    }
}

fn order() -> Order {
    let rollout = serde_json::json!({
        "id": "0196a5f0-0000-7000-8000-000000000001", "trigger": "shop", "number": 7, "state": "running", "attempts": 2,
        "images": { "web": {
            "image": "registry.example.com/shop/web:latest", "revision": 3, "digest": format!("sha256:{}", "a".repeat(64)),
            "pinned": format!("registry.example.com/shop/web@sha256:{}", "a".repeat(64)),
        } },
        "cause": { "reason": "revision", "changed": ["web"] },
        "created_at": "2026-11-01T10:00:00Z", "finished_at": null, "error": null,
    });
    let trace = tagtrail_proto::TraceContext {
        trace: 1,
        parent: 1,
        sampled: false,
    };
    Order::new(&serde_json::from_value(rollout).unwrap(), trace).unwrap()
}

fn error_of(outcome: Outcome) -> String {
    let error = outcome.error().expect("the attempt must fail");
    error.to_owned()
}
