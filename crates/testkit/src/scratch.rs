//! Temporary folders of tests.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use tagtrail_embedded::Settings;

/// A folder that is removed after any end of this process: a shell waits until the pipe closes,
/// whose only writer is this process.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: std::path::PathBuf,
    _pipe: ChildStdin,
    _janitor: Child,
}

impl Scratch {
    pub(crate) fn new(purpose: &str) -> Scratch {
        let path = tempfile::Builder::new()
            .prefix(&format!("tagtrail-test-{purpose}-"))
            .tempdir()
            .expect("can't make a folder for a test")
            .keep();
        // Retries for five seconds: servers with files in the folder need a moment to end.
        let script =
            r#"read _; for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; rm -rf "$1" && exit; done"#;
        let mut janitor = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("can't run sh");
        let pipe = janitor.stdin.take().unwrap();
        Scratch {
            path,
            _pipe: pipe,
            _janitor: janitor,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns settings for speed without durability: no test with them cuts the power.
pub(crate) fn settings(scratch: &Scratch) -> Settings {
    Settings {
        durable: false,
        accounts: false,
        shared_buffers: "32MB".to_owned(),
        ..Settings::new(scratch.path())
    }
}
