//! The target over HTTPS with a password, on git's own server of a private authority.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tagtrail_proto::RolloutState::Succeeded;
use tagtrail_testkit::{SOON, certificates, eventually};

use super::repository::ServerProcess;
use super::{Place, WEB_YAML, trigger, with_digest};
use crate::world::*;

const PASSWORD: &str = "s3cr3t-t0ken";

struct Server {
    /// Ends before its folder.
    _process: ServerProcess,
    folder: tempfile::TempDir,
    port: String,
}

impl Server {
    fn start(root: &Path) -> Server {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/git/server.py");
        let mut process = Command::new("python3")
            .arg(script)
            .args([folder.path(), root])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = std::io::BufReader::new(process.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        let port = line.trim().to_owned();
        Server {
            folder,
            _process: ServerProcess(process),
            port,
        }
    }

    fn settings(&self, path: &str, password: &str) -> String {
        let file = |name: &str| self.folder.path().join(name);
        std::fs::write(file("password"), password).unwrap();
        format!(
            "url = \"https://127.0.0.1:{}/{path}\"\nbranch = \"main\"\npath = \"prod\"\nca = {{ file = {:?} }}\n\
             auth = {{ username = \"deploy\", password = {{ file = {:?} }} }}\n",
            self.port,
            file("ca.pem"),
            file("password")
        )
    }

    fn requests(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("requests")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_goes_over_https_with_a_password_that_can_change() {
    let mut place = Place::new("").await;
    let server = Server::start(place.repository.path().parent().unwrap());
    let settings = server.settings("repository.git", PASSWORD);
    place.world.configure(&trigger("shop", &settings));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    assert_eq!(
        place.repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 1)
    );
    // A wrong password is named without being shown.
    server.settings("repository.git", "wr0ng-t0ken");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    place.world.push(WEB, 2).await;
    let errors = eventually("a failed attempt", SOON, async || {
        let errors = place.world.errors().await;
        (!errors.is_empty()).then_some(errors)
    })
    .await;
    assert!(
        errors[0].contains("Authentication failed") && errors[0].contains("; check auth"),
        "{errors:?}"
    );
    // The right one is read again.
    server.settings("repository.git", PASSWORD);
    place.wait(2, Succeeded).await;
    assert_eq!(
        place.repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 2)
    );
    let shown = place.world.errors().await.join("\n") + &place.world.said().await.join("\n");
    assert!(
        !shown.contains(PASSWORD) && !shown.contains("wr0ng"),
        "{shown}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_gets_no_password() {
    let mut place = Place::new("").await;
    let server = Server::start(place.repository.path().parent().unwrap());
    place
        .world
        .configure(&trigger("shop", &server.settings("moved", PASSWORD)));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let errors = eventually("a failed attempt", SOON, async || {
        let errors = place.world.errors().await;
        (!errors.is_empty()).then_some(errors)
    })
    .await;
    assert!(errors[0].contains("unable to access"), "{errors:?}");
    let requests = server.requests();
    assert!(
        requests
            .lines()
            .all(|line| line.starts_with("/moved/") && line.ends_with(" None")),
        "{requests}"
    );
    assert_eq!(place.repository.read("main", "prod/web.yaml"), WEB_YAML);
    service.stop().await;
}
