//! A cluster of three nats-servers, which keeps three copies of each replicated message.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::scratch::Scratch;
use crate::{Process, SOON, eventually, free_address};

/// The number of servers in a cluster.
pub const NODES: usize = 3;

const USER: &str = "tagtrail";
const PASSWORD: &str = "cluster";

/// A cluster of the test's own.
#[derive(Debug)]
pub struct TestCluster {
    nodes: Vec<Node>,
    _scratch: Scratch,
}

#[derive(Debug)]
struct Node {
    process: Option<Process>,
    config: std::path::PathBuf,
    clients: String,
    monitor: String,
}

impl TestCluster {
    /// Starts three servers and waits for a leader. If `durable`, the servers sync each message.
    pub async fn start(durable: bool) -> TestCluster {
        let scratch = Scratch::new("cluster");
        let routes: Vec<String> = (0..NODES).map(|_| free_address()).collect();
        let nodes = routes
            .iter()
            .enumerate()
            .map(|(number, route)| {
                let others = routes.iter().filter(|other| *other != route);
                Node::new(scratch.path(), number, route, others, durable)
            })
            .collect();
        let mut cluster = TestCluster {
            nodes,
            _scratch: scratch,
        };
        for number in 0..NODES {
            cluster.resume(number);
        }
        eventually("a leader of the cluster", SOON, async || {
            let context = async_nats::jetstream::new(cluster.client().await?);
            context.query_account().await.ok()
        })
        .await;
        cluster
    }

    /// Returns the URLs of all servers with their passwords.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("nats://{USER}:{PASSWORD}@{}", node.clients))
            .collect();
        urls.join(",")
    }

    /// Pauses a server until `meanwhile` ends, so that the others lose contact with it. A stopped
    /// server stays stopped.
    pub async fn without(&self, number: usize, meanwhile: impl Future<Output = ()>) {
        let process = self.nodes[number].process.as_ref();
        process.inspect(|process| process.signal("STOP"));
        meanwhile.await;
        process.inspect(|process| process.signal("CONT"));
    }

    /// Returns the URL of the monitoring port of a server.
    #[must_use]
    pub fn monitor_url(&self, number: usize) -> String {
        format!("http://{}", self.nodes[number].monitor)
    }

    /// Connects to any server that answers; `None` if no server does.
    pub async fn client(&self) -> Option<async_nats::Client> {
        let addresses: Vec<async_nats::ServerAddr> = self
            .nodes
            .iter()
            .filter_map(|node| node.clients.parse().ok())
            .collect();
        let options = async_nats::ConnectOptions::with_user_and_password(
            USER.to_owned(),
            PASSWORD.to_owned(),
        );
        options.connect(addresses).await.ok()
    }

    /// Kills a server by SIGKILL. The server stays down.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].process = None;
    }

    /// Starts a server with the old store.
    pub fn resume(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(tagtrail_embedded::Nats::program().unwrap_or_else(|error| panic!("{error:#}")))
            .arg("--config")
            .arg(&node.config);
        node.process = Some(Process::spawn(&format!("nats-server {number}"), command));
    }
}

impl Node {
    fn new<'a>(
        folder: &Path,
        number: usize,
        route: &str,
        others: impl Iterator<Item = &'a String>,
        durable: bool,
    ) -> Node {
        let (clients, monitor) = (free_address(), free_address());
        let others: Vec<String> = others.map(|other| format!("nats://{other}")).collect();
        let config = json!({
            "listen": clients,
            "http": monitor,
            "server_name": format!("n{number}"),
            "authorization": { "user": USER, "password": PASSWORD },
            // Clients keep the addresses from their settings, since a proxy may stand between.
            "cluster": { "name": "tagtrail", "listen": route, "routes": others, "no_advertise": true },
            "jetstream": {
                "store_dir": folder.join(format!("n{number}")),
                "sync_interval": if durable { "always" } else { "2m" },
            },
        });
        let path = folder.join(format!("n{number}.conf"));
        std::fs::write(&path, config.to_string()).unwrap();
        Node {
            process: None,
            config: path,
            clients,
            monitor,
        }
    }
}
