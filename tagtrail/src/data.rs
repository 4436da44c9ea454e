//! The data folder of a running `tagtrail up`, which has the addresses of all parts.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

/// The folders of `tagtrail up` and of `make up` as root, in the order in which they are looked at.
const USUAL: [&str; 2] = [".tagtrail", "/var/lib/tagtrail"];

/// The argument of the commands that need the data folder.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Data {
    /// Data folder of a running `tagtrail up`, which has the addresses
    /// [default: .tagtrail, or else /var/lib/tagtrail].
    #[arg(long, env = "TAGTRAIL_DATA")]
    pub(crate) data: Option<PathBuf>,
}

impl Data {
    /// Returns the file with the addresses.
    pub(crate) fn file(&self) -> PathBuf {
        let file = |folder: &Path| folder.join("endpoints.json");
        let usual = USUAL.map(|folder| file(Path::new(folder)));
        match &self.data {
            Some(folder) => file(folder),
            None => {
                let [first, second] = usual;
                if !first.exists() && second.exists() {
                    second
                } else {
                    first
                }
            }
        }
    }

    /// Returns all addresses.
    pub(crate) fn endpoints(&self) -> anyhow::Result<Value> {
        let path = self.file();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("can't read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
    }
}

/// Returns the address of the admin page in the usual data folders, as HOST:PORT.
pub(crate) fn admin() -> Option<std::net::SocketAddr> {
    let endpoints = Data { data: None }.endpoints().ok()?;
    let address = endpoints["admin"].as_str()?;
    address.strip_prefix("http://")?.parse().ok()
}

/// Returns the address of the API in the usual data folders, and the file that has it; `None` if
/// `tagtrail up` does not run here, or as another user.
pub(crate) fn api() -> Option<(String, PathBuf)> {
    let data = Data { data: None };
    let endpoints = data.endpoints().ok()?;
    Some((endpoints["api"].as_str()?.to_owned(), data.file()))
}
