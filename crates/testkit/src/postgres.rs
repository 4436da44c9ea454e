//! A real Postgres.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tagtrail_embedded::{Folder, Postgres, Settings, signal};
use tokio::sync::{Mutex, OnceCell};

use crate::scratch::{Scratch, settings};

/// A Postgres server of the test's own, which the test may stop and start.
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
    /// Returns the URL with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Copies the database, as a backup would. The database must have no connections.
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

    /// Opens a new connection.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url)
            .await
            .expect("can't connect to the test's database")
    }
}

/// Returns an empty database with the schema, on one server that all tests of this process share.
pub async fn postgres() -> TestDb {
    static SERVER: OnceCell<TestPostgres> = OnceCell::const_new();
    static COPYING: Mutex<()> = Mutex::const_new(());
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(TestPostgres::start).await;
    // Postgres copies a template for one session at a time.
    let _copying = COPYING.lock().await;
    let name = format!("test_{}", COPIES.fetch_add(1, Ordering::Relaxed));
    let mut admin = PgConnection::connect(&server.url_of("postgres"))
        .await
        .expect("can't connect to the test's server");
    let sql = format!("create database {name} template tagtrail");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .expect("can't create a database");
    TestDb {
        url: server.url_of(&name),
    }
}

impl TestPostgres {
    /// Starts a server and migrates its database.
    pub async fn start() -> TestPostgres {
        let scratch = Scratch::new("postgres");
        TestPostgres::start_with(settings(&scratch), scratch).await
    }

    /// Starts a server with its files in `folder`, synced to disk as under `tagtrail up`.
    pub async fn start_in(folder: &Path) -> TestPostgres {
        let settings = Settings {
            accounts: false,
            ..Settings::new(folder)
        };
        TestPostgres::start_with(settings, Scratch::new("postgres")).await
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
        tagtrail_migrations::grant(&mut connection)
            .await
            .expect("can't grant the services' roles their rights");
        connection.close().await.unwrap();
        TestPostgres {
            folder,
            settings,
            server: Mutex::new(Some(server)),
            url,
            _scratch: scratch,
        }
    }

    /// Returns the database of the server.
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

    /// Returns the id of the first process, while the server runs.
    pub async fn pid(&self) -> Option<u32> {
        self.server.lock().await.as_ref().and_then(Postgres::pid)
    }

    /// Ends the server as a crash would, without a checkpoint. The supervisor restarts it after a
    /// moment. A stopped server stays stopped.
    pub async fn crash(&self) {
        if let Some(pid) = self.pid().await {
            signal(pid, "QUIT");
        }
    }

    /// Stops the server.
    pub async fn stop(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Starts the server again, on the same port.
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
            .expect("Postgres restarted at another address");
        connection.ping().await.unwrap();
    }
}

/// Returns the number of rows of a table that this session has read lately, but for those of
/// parallel workers and those that an index alone answers. The difference of two calls in one
/// transaction is a measure of the statements between them that does not depend on the speed of the
/// machine.
///
/// # Panics
/// If Postgres does not answer.
pub async fn rows_read(db: &mut PgConnection, table: &str) -> i64 {
    let reading = sqlx::query_scalar(
        "select (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint
         from pg_stat_xact_user_tables where relname = $1",
    );
    reading.bind(table).fetch_one(db).await.unwrap()
}
