//! The contents of the log. The log is global to the process, so this test sees the lines of all
//! tests, and looks only for secrets that no other test uses.

use std::io;
use std::sync::{Arc, Mutex};

use crate::client::post;
use crate::gateway::Gateway;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_holds_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let (_nats, gateway) = Gateway::with_nats().await;
    let answer = post(gateway.address, "/hooks/main/first-secret", &[], b"{}").await;
    assert_eq!(answer.status, 202);
    for (path, header) in [
        ("/hooks/main/mistyped-secret", "Bearer shown-secret"),
        ("/hooks/mistyped-secret", "shown-secret"),
        ("/hooks/mian/mistyped-secret", "shown-secret"),
        (
            "/mistyped-secret/x",
            "Basic c2hvd24tc2VjcmV0OnNob3duLXNlY3JldA==",
        ),
    ] {
        let answer = post(
            gateway.address,
            path,
            &[("authorization", header)],
            b"mistyped",
        )
        .await;
        assert!(!answer.body.contains("mistyped"), "{answer:?}");
    }
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("refused a request"), "nothing was logged");
    // An operator can find the registry with the wrong address.
    let line = text.lines().find(|line| line.contains("/hooks/mian/…"));
    let line = line.expect("no line about a path that is nearly right");
    for part in ["127.0.0.1:", "/hooks/main", "WARN"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for secret in ["first-secret", "mistyped", "shown-secret", "c2hvd24t"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}
