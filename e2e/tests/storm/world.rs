//! All processes, each with private links to the servers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_e2e::{SIGNING_SECRET, answers, use_ring};
use tagtrail_testkit::{
    Link, Process, Proxy, SOON, Sink, TestCluster, TestKubernetes, TestNats, TestPostgres,
    eventually, free_address, resident,
};
use tokio::sync::Mutex;

use crate::chats::Chats;
use crate::clusters;
use crate::commands;
use crate::events::REGISTRIES;
use crate::repositories;
use crate::skewed::{AskedRegistry, SKEWED};
use crate::teams::{Files, Targets, git_triggers};

/// The lines of a log that are printed after a failure.
const LAST_LINES: usize = 60;

/// The secret of the sources.
pub(crate) const SECRET: &str = "hook-secret-of-the-storm";
/// The triggers, with the images of each as `source/repository:tag`.
pub(crate) const TRIGGERS: [(&str, &[(&str, &str)]); 3] = [
    (
        "alpha",
        &[("one", "shop/web:latest"), ("one", "shop/worker:latest")],
    ),
    ("beta", &[("two", "foo/bar:latest")]),
    ("gamma", &[("one", "foo/baz:edge"), ("two", "foo/baz:edge")]),
];

/// A process of Tagtrail.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    pub(crate) process: Mutex<Option<Process>>,
    /// The proxies to NATS and to Postgres, and the proxy before the process's own address.
    pub(crate) links: Vec<Proxy>,
}

impl Member {
    /// Starts the process, unless it runs.
    pub(crate) async fn start(&self) {
        let mut process = self.process.lock().await;
        if process.as_mut().is_some_and(Process::running) {
            return;
        }
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        *process = Some(Process::tagtrail(&arguments, &environment));
    }

    /// Ends the process as `kill -9` does.
    pub(crate) async fn kill(&self) {
        if let Some(process) = self.process.lock().await.as_mut() {
            process.kill();
        }
    }

    /// Sends a signal to the process, if it runs.
    pub(crate) async fn signal(&self, name: &str) {
        let mut process = self.process.lock().await;
        if let Some(process) = process.as_mut()
            && process.running()
        {
            process.signal(name);
        }
    }

    /// Tells the process to look at its files now, if it runs.
    pub(crate) async fn hang_up(&self) {
        self.signal("HUP").await;
    }

    /// The log since the last start.
    async fn log(&self) -> String {
        let process = self.process.lock().await;
        process.as_ref().map_or_else(String::new, Process::log)
    }

    /// Resident memory in MiB; `None` if the process does not run.
    pub(crate) async fn resident(&self) -> Option<u64> {
        let pid = self.process.lock().await.as_ref()?.pid();
        Some(resident(pid)? / 1024)
    }
}

/// A single nats-server, or a cluster of three.
#[derive(Debug)]
pub(crate) enum Bus {
    One(Box<TestNats>),
    Three(Mutex<TestCluster>),
}

impl Bus {
    /// The URLs of the servers, with the password.
    async fn urls(&self) -> Vec<String> {
        let urls = match self {
            Bus::One(nats) => nats.url().to_owned(),
            Bus::Three(cluster) => cluster.lock().await.url(),
        };
        urls.split(',').map(ToOwned::to_owned).collect()
    }

    /// Makes a new connection; `None` while no server answers.
    pub(crate) async fn client(&self) -> Option<async_nats::Client> {
        match self {
            Bus::One(nats) => nats.client().await,
            Bus::Three(cluster) => cluster.lock().await.client().await,
        }
    }

    /// Reads all messages of a stream.
    pub(crate) async fn messages(&self, stream: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let client = self.client().await.ok_or("nats-server does not answer")?;
        Ok(tagtrail_testkit::messages(&async_nats::jetstream::new(client), stream).await)
    }

    /// Ends a server as `kill -9` does, and starts it again.
    pub(crate) async fn crash(&self, number: usize) {
        match self {
            Bus::One(nats) => nats.crash().await,
            Bus::Three(cluster) => {
                // A single server at a time, so that two of three remain as a majority.
                let mut cluster = cluster.lock().await;
                cluster.kill(number);
                tokio::time::sleep(Duration::from_secs(2)).await;
                cluster.resume(number);
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        }
    }

    /// Restarts the server without the end of REVISIONS, which is not synced. A cluster has the
    /// end in other replicas.
    pub(crate) async fn forget(&self, number: usize) {
        match self {
            Bus::One(nats) => nats.lose_end_of("REVISIONS").await,
            Bus::Three(_) => self.crash(number).await,
        }
    }

    /// Pauses a server for a while.
    pub(crate) async fn pause(&self, number: usize, pause: Duration) {
        match self {
            Bus::One(nats) => {
                nats.pause().await;
                tokio::time::sleep(pause).await;
                nats.unpause().await;
            }
            Bus::Three(cluster) => {
                let cluster = cluster.lock().await;
                cluster.without(number, tokio::time::sleep(pause)).await;
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        }
    }
}

/// The servers, the target and all processes.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) postgres: TestPostgres,
    pub(crate) nats: Bus,
    /// Number of streams of pushes.
    pub(crate) streams: u64,
    pub(crate) sink: Sink,
    pub(crate) to_sink: Proxy,
    /// A target that hangs, and refuses for good.
    pub(crate) dying: Sink,
    /// The address that a step of `verify` asks.
    pub(crate) health: Sink,
    pub(crate) chats: Chats,
    pub(crate) cluster: TestKubernetes,
    /// The registry that the resolvers ask.
    pub(crate) asked: AskedRegistry,
    /// The files of triggers.
    pub(crate) files: Mutex<Files>,
    pub(crate) members: Vec<Member>,
    /// Addresses of the gateways, behind their proxies.
    pub(crate) gateways: Vec<String>,
    pub(crate) api: String,
    folder: tempfile::TempDir,
}

impl World {
    /// Prints the end of each process's log.
    pub(crate) async fn show_logs(&self) {
        for member in &self.members {
            let log = member.log().await;
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            println!(
                "--- the end of the log of {}\n{}",
                member.name,
                last.join("\n")
            );
        }
    }

    /// The folder of the configuration, with the program and the notes of commands.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Returns the stream with the pushes of a partition.
    pub(crate) fn pushes(&self, partition: u64) -> String {
        match self.streams {
            1 => "PUSHES".to_owned(),
            several => format!("PUSHES_{}", partition % several),
        }
    }

    /// Starts everything. The clock of a process, chosen by the seed, is wrong by five minutes.
    pub(crate) async fn start(seed: u64, servers: u64) -> World {
        use_ring();
        let (postgres, cluster) = tokio::join!(TestPostgres::start(), clusters::start());
        let sink = Sink::start().await;
        let nats = match servers {
            1 => Bus::One(Box::new(TestNats::start().await)),
            _ => Bus::Three(Mutex::new(TestCluster::start(true).await)),
        };
        let to_sink = Proxy::start(host(sink.url())).await;
        let (asked, asked_url) = AskedRegistry::start().await;
        let folder = tempfile::tempdir().unwrap();
        let (dying, health) = (Sink::start().await, Sink::start().await);
        let chats = Chats::start().await;
        let target = sink.url().replace(&host(sink.url()), to_sink.address());
        let more = chats.config() + &clusters::config(&cluster);
        let config = config(folder.path(), &target, &asked_url, &more);
        commands::install(folder.path());
        repositories::install(folder.path(), &git_triggers());
        let targets = Targets {
            sink: target,
            dying: dying.url().to_owned(),
            health: health.url().to_owned(),
            minutes: minutes(),
        };
        let files = Files::start(folder.path(), targets);
        let mut world = World {
            postgres,
            nats,
            streams: if servers == 1 {
                [1, 3, 8][usize::try_from(seed % 3).unwrap()]
            } else {
                1
            },
            sink,
            to_sink,
            dying,
            health,
            chats,
            cluster,
            asked,
            files: Mutex::new(files),
            members: Vec::new(),
            gateways: Vec::new(),
            api: String::new(),
            folder,
        };
        let services = [
            ("gateway", 2),
            ("resolver", 2),
            ("indexer", 3),
            ("trigger", 2),
            ("api", 1),
        ];
        for (service, count) in services {
            for number in 1..=count {
                world.add(service, number, &config).await;
            }
        }
        let place = usize::try_from(seed % world.members.len() as u64).unwrap();
        let offset = if seed.is_multiple_of(2) {
            "-300"
        } else {
            "+300"
        };
        world.members[place].environment.extend(wrong_clock(offset));
        for member in &world.members {
            member.start().await;
        }
        let ready: Vec<String> = world
            .gateways
            .iter()
            .chain([&world.api])
            .map(|address| format!("http://{address}/"))
            .collect();
        for url in ready {
            eventually(&url, SOON, async || {
                reqwest::get(&url).await.is_ok().then_some(())
            })
            .await;
        }
        // A new entry tells of later events alone.
        let url = world.postgres.db().url().to_owned();
        eventually(
            "the places of the receivers of messages",
            SOON,
            async || {
                let mut db = PgConnection::connect(&url).await.ok()?;
                let count = "select count(*) from notify_position";
                let count: i64 = sqlx::query_scalar(count).fetch_one(&mut db).await.ok()?;
                (count == 2).then_some(())
            },
        )
        .await;
        world
    }

    async fn add(&mut self, service: &str, number: u32, config: &std::path::Path) {
        let postgres = self.postgres.db().url().to_owned();
        let to_postgres = Proxy::start(host(&postgres)).await;
        let (mut links, mut urls) = (Vec::new(), Vec::new());
        for url in self.nats.urls().await {
            let link = Proxy::start(host(&url)).await;
            urls.push(url.replace(&host(&url), link.address()));
            links.push(link);
        }
        let replicas = urls.len().to_string();
        let mut environment = BTreeMap::from([
            ("NATS_URL", urls.join(",")),
            ("TAGTRAIL_NATS_REPLICAS", replicas),
            ("TAGTRAIL_PUSH_STREAMS", self.streams.to_string()),
            ("TAGTRAIL_CONFIG", config.to_str().unwrap().to_owned()),
            ("TAGTRAIL_ADMIN", free_address()),
            ("STORM_HOOK_SECRET", SECRET.to_owned()),
            ("STORM_SIGNING_SECRET", SIGNING_SECRET.to_owned()),
            // One of two gateways stores pushes in groups, the other one by one.
            ("TAGTRAIL_NATS_SYNC_ALWAYS", (number == 1).to_string()),
        ]);
        if service != "gateway" {
            environment.insert(
                "DATABASE_URL",
                postgres.replace(&host(&postgres), to_postgres.address()),
            );
        }
        links.push(to_postgres);
        match service {
            "gateway" => {
                let listen = free_address();
                environment.insert("TAGTRAIL_GATEWAY_LISTEN", listen.clone());
                let front = Proxy::start(listen).await;
                self.gateways.push(front.address().to_owned());
                links.push(front);
            }
            "api" => {
                self.api = free_address();
                environment.insert("TAGTRAIL_API_LISTEN", self.api.clone());
            }
            "indexer" => {
                environment.insert("TAGTRAIL_SESSION_SECONDS", "2".to_owned());
                environment.insert("TAGTRAIL_CLAIM_INTERVAL_MS", "200".to_owned());
                environment.insert("TAGTRAIL_SWEEP_SECONDS", "5".to_owned());
            }
            "resolver" => {
                environment.insert("TAGTRAIL_ACK_SECONDS", "15".to_owned());
            }
            _ => {
                environment.insert("TAGTRAIL_SESSION_SECONDS", "2".to_owned());
            }
        }
        // For `make faults-selftest`: without this step the checks must fail, so the sweeper and
        // the repeated readings of repositories, which would mend the damage, are left out too.
        if let Ok(step) = std::env::var("FAULTS_WITHOUT") {
            let steps = format!("{step}:skip,indexer.sweep:skip,trigger.rotation:skip");
            environment.insert("TAGTRAIL_FAILPOINT", steps);
        }
        self.members.push(Member {
            name: format!("{service} {number}"),
            arguments: vec![service.to_owned()],
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            process: Mutex::new(None),
            links,
        });
    }

    /// Starts every process again, and mends all links.
    pub(crate) async fn heal(&self) {
        self.sink.calm();
        self.health.calm();
        self.chats.team.calm();
        self.to_sink.set(Link::Whole);
        for member in &self.members {
            member.links.iter().for_each(|link| link.set(Link::Whole));
            member.signal("CONT").await;
            member.start().await;
        }
        clusters::heal(&self.cluster).await;
        eventually("nats-server", SOON, async || self.nats.client().await).await;
        let api = format!("http://{}/v1/triggers", self.api);
        eventually("the api", SOON, async || answers(&api).await.then_some(())).await;
    }
}

/// The minutes of the window, as in a cron expression: every other one. It is closed at the middle
/// of a short storm.
fn minutes() -> &'static str {
    let middle = time::OffsetDateTime::now_utc() + Duration::from_secs(20);
    match middle.minute() % 2 {
        0 => "1-59/2",
        _ => "0-58/2",
    }
}

/// The environment of a process whose wall clock is wrong by `offset` seconds.
fn wrong_clock(offset: &str) -> Vec<(String, String)> {
    let library = std::fs::read_dir("/usr/lib")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
            path.exists().then_some(path)
        })
        .next()
        .expect("libfaketime is missing: run `make setup`");
    let library = library.to_str().unwrap();
    [
        ("LD_PRELOAD", library),
        ("FAKETIME", offset),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Returns `host:port` of a URL.
fn host(url: &str) -> String {
    let after = url.split_once("://").unwrap().1;
    let authority = after.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

fn config(folder: &std::path::Path, target: &str, asked: &str, more: &str) -> PathBuf {
    let mut text = format!(
        "triggers = \"triggers.d\"\n[[registry]]\nname = \"{}\"\nurl = \"{asked}\"\nreconcile = \"0s\"\n",
        SKEWED.1
    );
    for (source, registry) in REGISTRIES.into_iter().chain([SKEWED]) {
        text += &format!(
            "[[source]]\nname = \"{source}\"\nkind = \"generic\"\nregistry = \"{registry}\"\nsecret = {{ env = \"STORM_HOOK_SECRET\" }}\n"
        );
    }
    for (name, images) in TRIGGERS {
        text += &format!("[[trigger]]\nname = \"{name}\"\nsettle = \"0s\"\n");
        for (number, (source, image)) in images.iter().enumerate() {
            let registry = REGISTRIES
                .iter()
                .find(|(name, _)| name == source)
                .unwrap()
                .1;
            text += &format!("images.i{number} = \"{registry}/{image}\"\n");
        }
        text += &format!(
            "target.webhook = {{ url = \"{target}\", secret = {{ env = \"STORM_SIGNING_SECRET\" }} }}\n"
        );
    }
    text += more;
    let path = folder.join("tagtrail.toml");
    std::fs::write(&path, text).unwrap();
    path
}
