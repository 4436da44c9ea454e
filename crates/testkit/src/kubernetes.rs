//! A cluster: a real API server with etcd and controllers, and a fake kubelet in place of nodes.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::scratch::Scratch;
use crate::{signal, tool};

/// A running cluster. It ends with the process of the test, even if that is killed.
#[derive(Debug)]
pub struct TestKubernetes {
    program: PathBuf,
    // Its standard input is a pipe: the cluster ends when the pipe closes.
    child: Child,
    scratch: Scratch,
    ready: Value,
}

impl TestKubernetes {
    /// Returns the one cluster of this test program, which starts at the first call in some
    /// seconds. Tests use namespaces of their own.
    pub async fn shared() -> &'static TestKubernetes {
        static SHARED: OnceCell<TestKubernetes> = OnceCell::const_new();
        SHARED.get_or_init(TestKubernetes::start).await
    }

    /// Starts a cluster.
    ///
    /// # Panics
    /// If the program is missing or does not start.
    pub async fn start() -> TestKubernetes {
        TestKubernetes::start_with(&[]).await
    }

    /// Starts a cluster with further flags of the API server.
    ///
    /// # Panics
    /// If the program is missing or does not start.
    pub async fn start_with(flags: &[&str]) -> TestKubernetes {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (program, scratch) = (tool("kubetest"), Scratch::new("kubernetes"));
        let starting = tokio::task::spawn_blocking(move || {
            let folder = scratch.path().join("cluster");
            let log = std::fs::File::create(scratch.path().join("log")).unwrap();
            let mut child = Command::new(&program)
                .arg("up")
                .arg(&folder)
                .args(flags)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("can't start {}: {error}", program.display()));
            let mut line = String::new();
            let output = child.stdout.take().unwrap();
            BufReader::new(output).read_line(&mut line).unwrap();
            let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
                let log = std::fs::read_to_string(scratch.path().join("log"));
                panic!(
                    "the cluster did not start: {line:?}\n{}",
                    log.unwrap_or_default()
                )
            });
            TestKubernetes {
                program,
                child,
                scratch,
                ready,
            }
        });
        starting.await.unwrap()
    }

    /// Returns the kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("cluster/kubeconfig")
    }

    /// Returns the address of the API server.
    ///
    /// # Panics
    /// If the program did not name it.
    #[must_use]
    pub fn server(&self) -> &str {
        self.ready["server"].as_str().unwrap()
    }

    /// Sends a signal to the API server, as soon as it runs. One that ended is started again.
    ///
    /// # Panics
    /// If no API server runs for long.
    pub fn signal_api_server(&self, name: &str) {
        for _ in 0..200 {
            if let Some(pid) = self.api_server() {
                return signal(pid, name);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("no API server runs");
    }

    /// Returns the id of the process of the API server: a child of the program.
    fn api_server(&self) -> Option<u32> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.find(|id| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}"));
            let parent = format!("PPid:\t{}\n", self.child.id());
            let is_part = |line: String| line.split('\0').nth(1) == Some("kube-apiserver");
            read("status").is_ok_and(|status| status.contains(&parent))
                && read("cmdline").is_ok_and(is_part)
        })
    }

    /// Starts a proxy that passes plain HTTP on to the API server, as an administrator. It ends
    /// with the returned value.
    ///
    /// # Panics
    /// If kubectl does not start.
    #[must_use]
    pub fn proxy(&self) -> TestProxy {
        let mut child = Command::new(&self.program)
            .args(["kubectl", "proxy", "--port=0"])
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let port = line.trim().rsplit_once(':').map(|(_, port)| port.parse());
        let port = port.unwrap_or_else(|| panic!("kubectl proxy said {line:?}"));
        TestProxy {
            child,
            port: port.unwrap(),
        }
    }

    /// Runs kubectl as an administrator. Returns its output, or its error output.
    ///
    /// # Errors
    /// If kubectl fails.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        use std::io::Write as _;
        let mut child = Command::new(&self.program)
            .arg("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(input.as_bytes())
            .map_err(|error| error.to_string())?;
        drop(stdin);
        let output = child
            .wait_with_output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    /// Runs kubectl as an administrator, and returns its output.
    ///
    /// # Panics
    /// If kubectl fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let done = self.try_kubectl(arguments, "");
        done.unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// Creates objects from a text in YAML.
    ///
    /// # Panics
    /// If kubectl fails.
    pub fn create(&self, objects: &str) {
        let done = self.try_kubectl(&["create", "-f", "-"], objects);
        done.unwrap_or_else(|error| panic!("kubectl create: {error}\n{objects}"));
    }

    /// Makes a namespace for one test, and returns its name.
    ///
    /// # Panics
    /// If kubectl fails.
    #[must_use]
    pub fn namespace(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name]);
        name
    }

    /// Reads an object.
    ///
    /// # Panics
    /// If kubectl fails.
    #[must_use]
    pub fn get(&self, namespace: &str, object: &str) -> Value {
        let text = self.kubectl(&[
            "--namespace",
            namespace,
            "get",
            object,
            "--output=json",
            "--show-managed-fields",
        ]);
        serde_json::from_str(&text).unwrap()
    }
}

/// A proxy in front of the API server.
#[derive(Debug)]
pub struct TestProxy {
    child: Child,
    /// The port on 127.0.0.1.
    pub port: u16,
}

impl Drop for TestProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TestKubernetes {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
