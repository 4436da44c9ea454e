//! Folders of tests.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use tagtrail_embedded::Settings;

/// A folder that is removed when this process is gone, however it went: a shell waits for the end of a pipe that only we hold.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: std::path::PathBuf,
    _pipe: ChildStdin,
    _janitor: Child,
}

impl Scratch {
    pub(crate) fn new(what: &str) -> Scratch {
        let path = tempfile::Builder::new()
            .prefix(&format!("tagtrail-test-{what}-"))
            .tempdir()
            .expect("can't make a folder for a test")
            .keep();
        // Tries for a while: servers in it take a moment to notice that we are gone.
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

/// Fast and forgetful: no test here cuts the power.
pub(crate) fn settings(scratch: &Scratch) -> Settings {
    Settings {
        durable: false,
        shared_buffers: "32MB".to_owned(),
        ..Settings::new(scratch.path())
    }
}
