//! The private nats-server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::child::{Child, ChildSpec};
use crate::find::Program;
use crate::{Folder, Settings};

const NATS: Program = Program {
    name: "nats-server",
    folders: &[("/usr/lib/nats-server", "bin")],
    minimum: (2, 12),
    cure: "run `make setup`, which puts a current version into .tools (the package of Debian 12 is too old)",
};

/// The user with all rights, for people and for tests.
const OWNER: &str = "tagtrail";
/// The users of services and subscribers.
const USERS: [&str; 8] = [
    "migrate",
    "gateway",
    "resolver",
    "indexer",
    "trigger",
    "api",
    "operator",
    "subscriber",
];
/// The configuration of an installation with a nats-server of its own. Its accounts hold here too.
const DEPLOYED: &str = include_str!("../../../deploy/nats/nats.conf");
/// The account with the streams, and the one that nats-server uses without accounts.
const ACCOUNT: &str = "BUS";
const WITHOUT_ACCOUNTS: &str = "$G";

/// A running nats-server.
#[derive(Debug)]
pub struct Nats {
    child: Child,
    port: u16,
    /// The password of [`OWNER`].
    password: String,
    /// The passwords of [`USERS`].
    passwords: BTreeMap<&'static str, String>,
}

impl Nats {
    /// Starts nats-server and waits until `JetStream` answers.
    ///
    /// # Errors
    /// Names the missing program or the failed start, with the cure.
    pub async fn start(folder: &Folder, settings: &Settings) -> anyhow::Result<Nats> {
        let program = NATS.find()?;
        let store = folder.child_folder("nats")?;
        let password = folder.password("nats")?;
        let passwords = folder.passwords("nats", &USERS)?;
        let port = folder.port("nats")?;
        adopt_streams(&store)?;
        // The configuration format is a superset of JSON, so the quoting of JSON is right for the
        // path.
        let jetstream = serde_json::json!({
            "store_dir": store,
            // With the default interval a power cut loses up to two minutes of acknowledged
            // messages.
            "sync_interval": if settings.durable { "always" } else { "2m" },
        });
        let config = format!(
            "host: 127.0.0.1\nport: {port}\nserver_name: tagtrail\njetstream: {jetstream}\n{}",
            accounts(&password, &passwords)?
        );
        let config = folder.child_file("nats.conf", &config)?;
        let child = Child::start(ChildSpec {
            name: "nats-server",
            program,
            arguments: vec!["--config".to_owned(), config.display().to_string()],
            user: folder.user().cloned(),
            log: folder.path().join("nats.log"),
            stop: "TERM",
            death_signal: "KILL",
        })?;
        child
            .wait_until(|| is_ready(port), Duration::from_secs(60))
            .await?;
        Ok(Nats {
            child,
            port,
            password,
            passwords,
        })
    }

    /// Returns the path of the installed nats-server, if it is new enough.
    ///
    /// # Errors
    /// Names the searched places and the cure.
    pub fn program() -> anyhow::Result<std::path::PathBuf> {
        NATS.find()
    }

    /// Returns the URL with the password of the user with all rights.
    #[must_use]
    pub fn url(&self) -> String {
        url(OWNER, &self.password, self.port)
    }

    /// Returns the URL with the password of a user of `deploy/nats/nats.conf`, such as `gateway`;
    /// `None` if the user does not exist.
    #[must_use]
    pub fn url_of(&self, user: &str) -> Option<String> {
        let password = self.passwords.get(user)?;
        Some(url(user, password, self.port))
    }

    /// Returns the process id, while nats-server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// Returns whether the log ends with the report of a full disk.
    pub(crate) fn had_no_room(&self) -> bool {
        self.child.log_end().contains("no space left on device")
    }

    /// Resolves when the supervisor gives up.
    pub async fn failed(&self) -> anyhow::Error {
        self.child.failed().await
    }

    /// Stops nats-server and waits for the end.
    pub async fn stop(self) {
        self.child.stop().await;
    }
}

fn url(user: &str, password: &str, port: u16) -> String {
    format!("nats://{user}:{password}@127.0.0.1:{port}")
}

/// Returns the accounts of [`DEPLOYED`] with these passwords, and [`OWNER`] in the account with the
/// streams.
fn accounts(password: &str, passwords: &BTreeMap<&'static str, String>) -> anyhow::Result<String> {
    let (_, accounts) = DEPLOYED.split_once("\naccounts {").context("no accounts")?;
    let (before, users) = accounts.split_once("    users: [\n").context("no users")?;
    let owner = serde_json::json!({ "user": OWNER, "password": password });
    let mut accounts = format!("accounts {{{before}    users: [\n      {owner}\n{users}");
    for (user, password) in passwords {
        let variable = format!("$NATS_{}_PASSWORD", user.to_uppercase());
        let password = serde_json::json!(password).to_string();
        accounts = accounts.replace(&variable, &password);
    }
    Ok(accounts)
}

/// Gives the streams of an earlier version, which had no accounts, to [`ACCOUNT`].
fn adopt_streams(store: &Path) -> anyhow::Result<()> {
    let streams = store.join("jetstream");
    let (before, now) = (streams.join(WITHOUT_ACCOUNTS), streams.join(ACCOUNT));
    let is_folder = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    if is_folder(&streams) && is_folder(&before) && now.symlink_metadata().is_err() {
        std::fs::rename(&before, &now)
            .with_context(|| format!("can't rename {}", before.display()))?;
    }
    Ok(())
}

/// Returns whether the greeting of the server announces `JetStream`.
async fn is_ready(port: u16) -> bool {
    let greeting = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        line.contains("\"jetstream\":true").then_some(())
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(2), greeting).await,
        Ok(Some(()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_of_the_deployed_accounts_has_a_password() {
        let passwords = USERS.map(|user| (user, format!("pw-{user}"))).into();
        let accounts = accounts("pw", &passwords).unwrap();
        let of_user = |user: &str| format!("user: {user}, password: \"pw-{user}\"");
        for user in USERS {
            assert_eq!(accounts.matches(&of_user(user)).count(), 1, "{user}");
        }
        assert_eq!(accounts.matches("password: ").count(), USERS.len());
        assert!(!accounts.contains("_PASSWORD"), "{accounts}");
    }

    #[test]
    fn streams_of_an_earlier_version_are_kept() {
        let store = tempfile::tempdir().unwrap();
        let streams = store.path().join("jetstream");
        std::fs::create_dir_all(streams.join("$G/streams/PUSHES")).unwrap();
        adopt_streams(store.path()).unwrap();
        assert!(streams.join("BUS/streams/PUSHES").is_dir());
        assert!(!streams.join("$G").exists());
        // A second start, and a new folder, change nothing.
        adopt_streams(store.path()).unwrap();
        adopt_streams(&store.path().join("new")).unwrap();
        assert!(streams.join("BUS/streams/PUSHES").is_dir());
    }
}
