//! Who changed something, and who was refused, in the log. The log is global to the process, so
//! this test sees the lines of all tests, and looks for names that no other test uses.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::{Answer, Api};

/// The lines that a subscriber has written.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Returns the line with all of these parts.
    fn line(&self, parts: &[&str]) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let mut lines = text.lines();
        let line = lines.find(|line| parts.iter().all(|part| line.contains(part)));
        line.map(ToOwned::to_owned)
    }
}

#[tokio::test]
async fn changes_and_refusals_are_logged_with_their_author() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    subscriber.with_writer(move || writer.clone()).init();
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    let mut text = String::new();
    for (name, role) in [("audit-reader", "read"), ("audit-deployer", "operate")] {
        let secret = folder.path().join(name);
        std::fs::write(&secret, format!("{name}-0123456789")).unwrap();
        text += &format!(
            "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsecret = {{ file = {secret:?} }}\n"
        );
    }
    std::fs::write(&path, text).unwrap();
    let api = Api::with(&db, |config| config.config = Some(path)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = crate::rows::Rows::new(db.connect().await).await;
    rows.trigger("audited", true).await;
    let ask = async |call: &str, token: &str| {
        let request = api.request("POST", &format!("/v1/triggers/audited/{call}"));
        let request = request.bearer_auth(token);
        Answer::read(request.send().await.unwrap()).await
    };
    for (call, change) in [("pause", "paused"), ("resume", "resumed")] {
        assert_eq!(ask(call, "audit-deployer-0123456789").await.status, 200);
        let text = format!("switched the trigger audited: {change}");
        let line = log.line(&["INFO", "audit-deployer at 127.0.0.1:", &text]);
        assert!(line.is_some(), "{change}");
    }
    // A repeated call changes nothing.
    let resumed = || {
        let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
        text.matches("the trigger audited: resumed").count()
    };
    assert_eq!(ask("resume", "audit-deployer-0123456789").await.status, 200);
    assert_eq!(resumed(), 1);
    assert_eq!(ask("pause", "audit-reader-0123456789").await.status, 403);
    let route = "/v1/triggers/{name}/pause";
    let line = log.line(&["WARN", "audit-reader", "127.0.0.1:", route]);
    assert!(line.is_some());

    // Guesses: few lines, and a limit that does not concern the owner of a token.
    tokio::time::sleep(Duration::from_millis(1100)).await; // until a further line may be written
    let started = Instant::now();
    let mut guesses = 0;
    loop {
        guesses += 1;
        match ask("pause", "audit-guess-0123456789")
            .await
            .problem()
            .as_str()
        {
            "401 unauthenticated" => assert!(guesses < 100, "no limit"),
            problem => break assert_eq!(problem, "429 too_many_refusals"),
        }
    }
    assert!(started.elapsed() >= Duration::from_secs(1));
    let lines = {
        let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
        let lines = text
            .lines()
            .filter(|line| line.contains("refused a request"));
        let lines = lines.filter(|line| line.contains(route) && !line.contains("audit-reader"));
        lines.count()
    };
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines");
    assert_eq!(ask("pause", "audit-deployer-0123456789").await.status, 200);
    assert!(log.line(&["audit-guess"]).is_none());
}
