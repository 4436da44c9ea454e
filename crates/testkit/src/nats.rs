//! A real nats-server.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use futures_util::StreamExt as _;
use tagtrail_embedded::{Folder, Nats, Settings, signal};
use tokio::sync::Mutex;

use crate::scratch::{Scratch, settings};

/// A nats-server of the test's own: the names of streams are fixed, so tests cannot share a server.
#[derive(Debug)]
pub struct TestNats {
    folder: Folder,
    settings: Settings,
    server: Mutex<Option<Nats>>,
    url: String,
    _scratch: Scratch,
}

impl TestNats {
    /// Starts a server.
    pub async fn start() -> TestNats {
        let scratch = Scratch::new("nats");
        TestNats::start_with(settings(&scratch), scratch).await
    }

    /// Starts a server with its store in `folder`. If `durable`, it syncs as under `tagtrail up`,
    /// otherwise as nats-server does by default.
    pub async fn start_in(folder: &Path, durable: bool) -> TestNats {
        let settings = Settings {
            durable,
            ..Settings::new(folder)
        };
        TestNats::start_with(settings, Scratch::new("nats")).await
    }

    async fn start_with(settings: Settings, scratch: Scratch) -> TestNats {
        let folder = Folder::open(&settings.data).unwrap_or_else(|error| panic!("{error:#}"));
        let server = Nats::start(&folder, &settings)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        let url = server.url();
        TestNats {
            folder,
            settings,
            server: Mutex::new(Some(server)),
            url,
            _scratch: scratch,
        }
    }

    /// Returns a server with a known URL that does not run yet.
    pub async fn stopped() -> TestNats {
        let server = TestNats::start().await;
        server.stop().await;
        server
    }

    /// Returns the URL with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens a new connection; `None` while the server does not answer.
    pub async fn client(&self) -> Option<async_nats::Client> {
        // The client ignores the credentials in the URL.
        let address: async_nats::ServerAddr = self.url.parse().ok()?;
        let options = async_nats::ConnectOptions::with_user_and_password(
            address.username()?.to_owned(),
            address.password()?.to_owned(),
        );
        options.connect(address).await.ok()
    }

    /// Returns a `JetStream` context, with which tests inspect the streams of the services.
    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(
            self.client()
                .await
                .expect("can't connect to the test's nats-server"),
        )
    }

    /// Returns subjects and bodies of all messages in a stream, in order; nothing if the stream
    /// does not exist.
    pub async fn messages(&self, stream: &str) -> Vec<(String, Vec<u8>)> {
        messages(&self.jetstream().await, stream).await
    }

    /// Kills the server by SIGKILL. The supervisor restarts it after a moment, on the same port and
    /// with the same store. A stopped server stays stopped.
    pub async fn crash(&self) {
        if let Some(pid) = self.pid().await {
            signal(pid, "KILL");
        }
    }

    /// Pauses the server: connections stay open without answers.
    pub async fn pause(&self) {
        let pid = self.pid().await.expect("nats-server is not running");
        signal(pid, "STOP");
        // On a busy machine a thread may answer once more before the signal reaches all threads.
        let stopped = async {
            while !all_stopped(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::SOON, stopped)
            .await
            .expect("nats-server does not pause");
    }

    /// Ends a pause.
    pub async fn unpause(&self) {
        signal(
            self.pid().await.expect("nats-server is not running"),
            "CONT",
        );
    }

    /// Stops the server.
    pub async fn stop(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Stops the server and deletes the store.
    pub async fn lose(&self) {
        self.stop().await;
        std::fs::remove_dir_all(self.settings.data.join("nats")).expect("nats-server has no store");
    }

    /// Restarts the server without the later half of the last file of a stream, as after a power
    /// cut without syncs. A stopped server stays stopped.
    pub async fn lose_end_of(&self, stream: &str) {
        // Held until the server is back, so that other tasks find a slow server and not a stopped
        // one.
        let mut server = self.server.lock().await;
        let Some(running) = server.take() else { return };
        running.stop().await;
        // Below the folder of the account.
        let accounts = std::fs::read_dir(self.settings.data.join("nats/jetstream")).unwrap();
        let folders = accounts.map(|account| account.unwrap().path().join("streams").join(stream));
        let folders: Vec<_> = folders.filter(|folder| folder.is_dir()).collect();
        assert!(!folders.is_empty(), "no account has the stream {stream}");
        let files = folders
            .iter()
            .flat_map(|folder| std::fs::read_dir(folder.join("msgs")).unwrap());
        let files = files.map(|entry| entry.unwrap().path());
        let (blocks, others): (Vec<_>, Vec<_>) =
            files.partition(|path| path.extension().is_some_and(|kind| kind == "blk"));
        let number = |path: &std::path::PathBuf| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            name.parse::<u64>().unwrap()
        };
        if let Some(last) = blocks.iter().max_by_key(|path| number(path)) {
            let file = std::fs::File::options().write(true).open(last).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
        for index in others {
            let _ = std::fs::remove_file(index); // The index still names the lost messages.
        }
        let started = Nats::start(&self.folder, &self.settings).await;
        *server = Some(started.unwrap_or_else(|error| panic!("{error:#}")));
    }

    /// Copies the store. The server must be stopped.
    pub fn back_up(&self) {
        self.copy("nats", "nats.copy");
    }

    /// Replaces the store with its copy. The server must be stopped.
    pub fn restore(&self) {
        self.copy("nats.copy", "nats");
    }

    fn copy(&self, from: &str, to: &str) {
        let [from, to] = [from, to].map(|name| self.settings.data.join(name));
        let _ = std::fs::remove_dir_all(&to); // There may be no copy yet.
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.unwrap().success(), "can't copy the store");
    }

    /// Starts the server again, on the same port and with the same store.
    pub async fn resume(&self) {
        let server = Nats::start(&self.folder, &self.settings)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(
            server.url(),
            self.url,
            "nats-server restarted at another address"
        );
        *self.server.lock().await = Some(server);
    }

    /// Returns the process id, while the server runs.
    pub async fn pid(&self) -> Option<u32> {
        self.server.lock().await.as_ref().and_then(Nats::pid)
    }
}

/// Returns subjects and bodies of all messages in a stream, in order; nothing if the stream does
/// not exist or its server fails meanwhile. PUSHES stands for all streams of pushes.
pub async fn messages(
    context: &async_nats::jetstream::Context,
    stream: &str,
) -> Vec<(String, Vec<u8>)> {
    let mut messages = messages_of(context, stream).await;
    if stream == "PUSHES" {
        for number in 0..8 {
            messages.extend(messages_of(context, &format!("PUSHES_{number}")).await);
        }
    }
    messages
}

async fn messages_of(
    context: &async_nats::jetstream::Context,
    stream: &str,
) -> Vec<(String, Vec<u8>)> {
    let read = async || {
        let stream = match context.get_stream(stream).await {
            Ok(stream) => stream,
            Err(error) if is_missing(&error) => return Some(Vec::new()),
            Err(_) => return None,
        };
        let consumer = stream
            .create_consumer(pull::Config {
                ack_policy: AckPolicy::None,
                ..pull::Config::default()
            })
            .await
            .ok()?;
        let count = consumer.cached_info().num_pending;
        let fetching = consumer
            .fetch()
            .max_messages(usize::try_from(count).unwrap())
            .expires(Duration::from_secs(20))
            .messages();
        let mut fetched = fetching.await.ok()?;
        let mut messages = Vec::new();
        while let Some(message) = fetched.next().await {
            let message = message.ok()?;
            messages.push((message.subject.to_string(), message.payload.to_vec()));
        }
        Some(messages)
    };
    // A busy or restarted server may leave a request without an answer.
    for _ in 0..3 {
        if let Some(messages) = read().await {
            return messages;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Vec::new()
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Returns whether no thread of a process runs any more.
fn all_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process has ended");
    threads.filter_map(Result::ok).all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.contains("State:\tT")
    })
}
