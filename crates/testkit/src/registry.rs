//! Registries: the `docker-registry` of Debian (version 2), or CNCF distribution 3. Clients:
//! `skopeo`, crane and regctl.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tagtrail_proto::Digest;

use crate::process::Process;
use crate::scratch::Scratch;
use crate::token::{self, TokenServer};
use crate::{SOON, TestImage, eventually};

const CURE: &str =
    "install both with `apt-get install docker-registry skopeo`, or run `make setup`";

/// The programs that serve a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryProgram {
    /// `docker-registry` 2 of Debian. It has no delete by tag.
    Debian,
    /// CNCF distribution 3, which `make setup` builds.
    Distribution3,
}

/// Returns the program that `make setup` put into `.tools/`.
///
/// # Panics
/// If the program is missing.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.tools")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make setup`",
        path.display()
    );
    path
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    host: String,
    program: PathBuf,
    scratch: Scratch,
    password: bool,
    users: Option<Scratch>,
    tokens: Option<TokenServer>,
    process: Option<Process>,
}

impl Registry {
    /// The user of registries that ask for a password.
    pub const USER: &'static str = "ci";
    /// The password of that user.
    pub const PASSWORD: &'static str = "pull-secret";

    /// Starts a registry that sends its notifications to `url` with this `Authorization` header.
    pub async fn start(url: &str, authorization: &str) -> Registry {
        Registry::start_program(RegistryProgram::Debian, url, authorization, &[]).await
    }

    /// Starts a registry as [`Registry::start`] does, which reports none of these actions, such as
    /// `push`.
    pub async fn start_program(
        program: RegistryProgram,
        url: &str,
        authorization: &str,
        ignored: &[&str],
    ) -> Registry {
        let notifications = serde_json::json!({ "endpoints": [{
            "name": "tagtrail",
            "url": url,
            "headers": { "Authorization": [authorization] },
            "timeout": "1s",
            "threshold": 5,
            "backoff": "200ms",
            // Version 2 heeds `actions` only beside `mediatypes`.
            "ignore": { "actions": ignored, "mediatypes": ["application/octet-stream"] },
        }] });
        Registry::run_program(program, |host, storage| {
            json(host, storage, "notifications", &notifications)
        })
        .await
    }

    /// Starts a registry with this configuration (YAML); only address and folder are replaced.
    pub async fn configured(config: &str) -> Registry {
        Registry::run(|host, storage| {
            let storage = storage.display().to_string();
            let config = config.replace("\":5000\"", &format!("\"{host}\""));
            config.replace("/var/lib/registry", &storage)
        })
        .await
    }

    /// Starts a registry that sends no notifications and asks for a password (`htpasswd`).
    pub async fn with_password() -> Registry {
        /// The output of `htpasswd -B` for user and password.
        const USERS: &str = "ci:$2b$05$abcdefghijklmnopqrstuuiuhH7Ikupt0NZBlrLOsxuBkm7D98a7C\n";
        let users = Scratch::new("users");
        let path = users.path().join("users");
        std::fs::write(&path, USERS).unwrap();
        let auth = serde_json::json!({ "htpasswd": { "realm": "tests", "path": path } });
        let mut registry = Registry::run(|host, storage| json(host, storage, "auth", &auth)).await;
        registry.password = true;
        registry.users = Some(users);
        registry
    }

    /// Starts a registry that sends no notifications and accepts tokens of its own issuer. The
    /// issuer asks for the same password.
    pub async fn with_tokens() -> Registry {
        let tokens = TokenServer::start().await;
        let certificate = Scratch::new("certificate");
        let path = certificate.path().join("issuer.crt");
        std::fs::write(&path, token::CERTIFICATE).unwrap();
        let auth = serde_json::json!({ "token": {
            "realm": tokens.realm, "service": token::SERVICE, "issuer": token::ISSUER, "rootcertbundle": path,
        } });
        let mut registry = Registry::run(|host, storage| json(host, storage, "auth", &auth)).await;
        registry.password = true;
        registry.users = Some(certificate);
        registry.tokens = Some(tokens);
        registry
    }

    /// Returns the URL of the token issuer.
    #[must_use]
    pub fn realm(&self) -> Option<&str> {
        self.tokens.as_ref().map(|tokens| tokens.realm.as_str())
    }

    async fn run(config: impl FnOnce(&str, &Path) -> String) -> Registry {
        Registry::run_program(RegistryProgram::Debian, config).await
    }

    async fn run_program(
        program: RegistryProgram,
        config: impl FnOnce(&str, &Path) -> String,
    ) -> Registry {
        let program = match program {
            RegistryProgram::Debian => PathBuf::from("docker-registry"),
            RegistryProgram::Distribution3 => tool("distribution"),
        };
        let scratch = Scratch::new("registry");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let storage = scratch.path().join("storage");
        let path = scratch.path().join("config.yml");
        std::fs::write(&path, config(&host, &storage)).unwrap();
        assert!(
            Command::new(&program).arg("--version").output().is_ok(),
            "docker-registry is missing: {CURE}"
        );
        let mut registry = Registry {
            host,
            program,
            scratch,
            password: false,
            users: None,
            tokens: None,
            process: None,
        };
        registry.serve().await;
        registry
    }

    async fn serve(&mut self) {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .arg("serve")
            .arg(self.scratch.path().join("config.yml"));
        self.process = Some(Process::spawn("docker-registry", command));
        eventually("the registry", SOON, async || {
            std::net::TcpStream::connect(&self.host).ok()
        })
        .await;
    }

    /// Kills the registry together with its undelivered notifications, and starts it again on the
    /// same storage.
    pub async fn restart(&mut self) {
        self.process = None;
        eventually("the registry to end", SOON, async || {
            std::net::TcpStream::connect(&self.host).err()
        })
        .await;
        self.serve().await;
    }

    /// Returns `host:port`: the name of the registry in its events.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Pushes an image as `repository:tag`. Returns the new digest of the tag.
    #[must_use]
    pub fn push(&self, image: &TestImage, name: &str) -> Digest {
        let folder = tempfile::tempdir_in(self.scratch.path()).unwrap();
        let digest = image.write(folder.path());
        let from = format!("oci:{}", folder.path().display());
        self.skopeo(&[
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &self.reference(name),
        ]);
        digest
    }

    /// Asks the registry for the digest of a tag.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Digest {
        let manifest = self.skopeo(&[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &self.reference(name),
        ]);
        Digest::sha256_of(&manifest)
    }

    /// Deletes the manifest that a tag points to, and so all tags of this manifest.
    pub fn delete(&self, name: &str) {
        self.skopeo(&["delete", "--tls-verify=false", &self.reference(name)]);
    }

    /// Runs regctl.
    ///
    /// # Panics
    /// If the command fails.
    pub fn regctl(&self, arguments: &[&str]) {
        let done = Command::new(tool("regctl"))
            .env("REGCTL_CONFIG", self.scratch.path().join("regctl.json"))
            .args(["--host", &format!("reg={},tls=disabled", self.host)])
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "regctl {arguments:?}: {error}");
    }

    fn reference(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.host)
    }

    fn skopeo(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("skopeo");
        command.arg("--insecure-policy").args(arguments);
        if self.password {
            let flag = match arguments[0] {
                "copy" => "--dest-creds",
                _ => "--creds",
            };
            command.args([flag, &format!("{}:{}", Self::USER, Self::PASSWORD)]);
        }
        let done = command
            .output()
            .unwrap_or_else(|_| panic!("skopeo is missing: {CURE}"));
        assert!(
            done.status.success(),
            "skopeo {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        done.stdout
    }
}

/// Returns a configuration with one additional key. JSON is valid YAML.
fn json(host: &str, storage: &Path, key: &str, value: &serde_json::Value) -> String {
    let mut config = serde_json::json!({
        "version": "0.1",
        "log": { "level": "warn" },
        "storage": { "filesystem": { "rootdirectory": storage }, "delete": { "enabled": true } },
        "http": { "addr": host, "secret": "test" },
    });
    config[key] = value.clone();
    config.to_string()
}
