//! Postgres, a real one.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tagtrail_embedded::{Folder, Postgres, Settings, signal};
use tokio::sync::{Mutex, OnceCell};

use crate::scratch::{Scratch, settings};

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

    /// Its first process, while there is one.
    pub async fn pid(&self) -> Option<u32> {
        self.server.lock().await.as_ref().and_then(Postgres::pid)
    }

    /// Ends it as a crash would, without a checkpoint; it comes back by itself after a moment. One that is down stays down.
    pub async fn crash(&self) {
        if let Some(pid) = self.pid().await {
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
