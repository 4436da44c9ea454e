//! Postgres and nats-server, real ones.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt as _;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tagtrail_embedded::{Folder, Nats, Postgres, Settings, signal};
use tokio::sync::{Mutex, OnceCell};

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
fn settings(scratch: &Scratch) -> Settings {
    Settings {
        durable: false,
        shared_buffers: "32MB".to_owned(),
        ..Settings::new(scratch.path())
    }
}

/// A Postgres server of the test's own, which it may stop and start.
#[derive(Debug)]
pub struct TestPostgres {
    folder: Folder,
    settings: Settings,
    server: Mutex<Option<Postgres>>,
    url: String,
    _scratch: Scratch,
}

/// A database with the schema.
#[derive(Debug, Clone)]
pub struct TestDb {
    url: String,
}

impl TestDb {
    /// Its URL, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A copy of it, as a backup would be. Nobody may be connected to it.
    pub async fn copy(&self) -> TestDb {
        let (server, name) = self.url.rsplit_once('/').unwrap();
        let mut admin = PgConnection::connect(&format!("{server}/postgres"))
            .await
            .expect("can't connect to the test's server");
        let sql = format!("create database {name}_copy template {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .expect("can't copy a database");
        TestDb {
            url: format!("{server}/{name}_copy"),
        }
    }

    /// A new connection to it.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url)
            .await
            .expect("can't connect to the test's database")
    }
}

/// An empty database with the schema, on one server that all tests of this process share.
pub async fn postgres() -> TestDb {
    static SERVER: OnceCell<TestPostgres> = OnceCell::const_new();
    static COPYING: Mutex<()> = Mutex::const_new(());
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(TestPostgres::start).await;
    // A template can't be copied twice at once.
    let _copying = COPYING.lock().await;
    let name = format!("test_{}", COPIES.fetch_add(1, Ordering::Relaxed));
    let mut admin = PgConnection::connect(&server.url_of("postgres"))
        .await
        .expect("can't connect to the test's server");
    let sql = format!("create database {name} template tagtrail");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .expect("can't make a database");
    TestDb {
        url: server.url_of(&name),
    }
}

impl TestPostgres {
    /// Starts a server with the schema in its database.
    pub async fn start() -> TestPostgres {
        let scratch = Scratch::new("postgres");
        TestPostgres::start_with(settings(&scratch), scratch).await
    }

    /// The same with its files in a folder, synced to disk as `tagtrail up` does.
    pub async fn start_in(folder: &Path) -> TestPostgres {
        TestPostgres::start_with(Settings::new(folder), Scratch::new("postgres")).await
    }

    async fn start_with(settings: Settings, scratch: Scratch) -> TestPostgres {
        let folder = Folder::open(&settings.data).unwrap_or_else(|error| panic!("{error:#}"));
        let server = Postgres::start(&folder, &settings)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        let url = server.url().to_owned();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        tagtrail_migrations::MIGRATOR
            .run(&mut connection)
            .await
            .expect("can't migrate");
        connection.close().await.unwrap();
        TestPostgres {
            folder,
            settings,
            server: Mutex::new(Some(server)),
            url,
            _scratch: scratch,
        }
    }

    /// Its database.
    #[must_use]
    pub fn db(&self) -> TestDb {
        TestDb {
            url: self.url.clone(),
        }
    }

    fn url_of(&self, database: &str) -> String {
        let (server, _) = self.url.rsplit_once('/').unwrap();
        format!("{server}/{database}")
    }

    /// Ends it as a crash would, without a checkpoint; it comes back by itself after a moment. One that is down stays down.
    pub async fn crash(&self) {
        if let Some(pid) = self.server.lock().await.as_ref().and_then(Postgres::pid) {
            signal(pid, "QUIT");
        }
    }

    /// Stops it.
    pub async fn stop(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Starts it again, on the same port.
    pub async fn resume(&self) {
        *self.server.lock().await = Some(
            Postgres::start(&self.folder, &self.settings)
                .await
                .unwrap_or_else(|error| panic!("{error:#}")),
        );
        let mut connection = sqlx::postgres::PgConnectOptions::from_url(&self.url.parse().unwrap())
            .unwrap()
            .connect()
            .await
            .expect("Postgres came back elsewhere");
        connection.ping().await.unwrap();
    }
}

/// A nats-server of the test's own: streams have fixed names, so tests can't share one.
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

    /// Starts a server with its store in a folder; `durable`: as `tagtrail up` does, and otherwise with the defaults of nats-server.
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
        let url = server.url().to_owned();
        TestNats {
            folder,
            settings,
            server: Mutex::new(Some(server)),
            url,
            _scratch: scratch,
        }
    }

    /// A server that is not running yet, but whose URL is known.
    pub async fn stopped() -> TestNats {
        let server = TestNats::start().await;
        server.stop().await;
        server
    }

    /// Its URL, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection of its own; `None` while the server does not answer.
    pub async fn client(&self) -> Option<async_nats::Client> {
        // The client does not take the credentials from the URL by itself.
        let address: async_nats::ServerAddr = self.url.parse().ok()?;
        let options = async_nats::ConnectOptions::with_user_and_password(
            address.username()?.to_owned(),
            address.password()?.to_owned(),
        );
        options.connect(address).await.ok()
    }

    /// `JetStream`, to look at what the services made of it.
    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(
            self.client()
                .await
                .expect("can't connect to the test's nats-server"),
        )
    }

    /// The bodies and subjects that a stream holds now, in order; none if the stream is not there yet.
    pub async fn messages(&self, stream: &str) -> Vec<(String, Vec<u8>)> {
        messages(&self.jetstream().await, stream).await
    }

    /// `kill -9`; it comes back by itself after a moment, on the same port and with the same store. One that is down stays down.
    pub async fn crash(&self) {
        if let Some(pid) = self.pid().await {
            signal(pid, "KILL");
        }
    }

    /// Stops time for it: connections stay, nothing is answered.
    pub async fn pause(&self) {
        signal(
            self.pid().await.expect("nats-server is not running"),
            "STOP",
        );
    }

    /// Lets its time go on.
    pub async fn unpause(&self) {
        signal(
            self.pid().await.expect("nats-server is not running"),
            "CONT",
        );
    }

    /// Stops it.
    pub async fn stop(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Stops it and loses its disk.
    pub async fn lose(&self) {
        self.stop().await;
        std::fs::remove_dir_all(self.settings.data.join("nats")).expect("nats-server has no store");
    }

    /// Restarts it without the later half of what its last file of a stream held, as after a power cut of one that is not synced.
    /// One that is down stays down.
    pub async fn lose_end_of(&self, stream: &str) {
        // Held until it is back: to others it is merely slow.
        let mut server = self.server.lock().await;
        let Some(running) = server.take() else { return };
        running.stop().await;
        let store = self.settings.data.join("nats/jetstream/$G/streams");
        let folder = store.join(stream).join("msgs");
        let files = std::fs::read_dir(&folder).into_iter().flatten();
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
            let _ = std::fs::remove_file(index); // It says what was there before.
        }
        let started = Nats::start(&self.folder, &self.settings).await;
        *server = Some(started.unwrap_or_else(|error| panic!("{error:#}")));
    }

    /// Copies its disk, of a server that is stopped.
    pub fn back_up(&self) {
        self.copy("nats", "nats.copy");
    }

    /// Puts the copy of its disk in place of it, of a server that is stopped.
    pub fn restore(&self) {
        self.copy("nats.copy", "nats");
    }

    fn copy(&self, from: &str, to: &str) {
        let [from, to] = [from, to].map(|name| self.settings.data.join(name));
        let _ = std::fs::remove_dir_all(&to); // There may be none.
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.unwrap().success(), "can't copy the store");
    }

    /// Starts it again, on the same port and with the same store.
    pub async fn resume(&self) {
        let server = Nats::start(&self.folder, &self.settings)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(server.url(), self.url, "nats-server came back elsewhere");
        *self.server.lock().await = Some(server);
    }

    async fn pid(&self) -> Option<u32> {
        self.server.lock().await.as_ref().and_then(Nats::pid)
    }
}

/// The bodies and subjects that a stream holds now, in order; none if the stream is not there yet, or its server fails meanwhile.
pub async fn messages(
    context: &async_nats::jetstream::Context,
    stream: &str,
) -> Vec<(String, Vec<u8>)> {
    let read = async {
        let stream = context.get_stream(stream).await.ok()?;
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
    read.await.unwrap_or_default()
}
