//! A server in front of a real API server, which answers some requests itself.

use std::sync::{Arc, Mutex};

use tagtrail_testkit::{TestKubernetes, TestProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The answer to a request.
pub(crate) enum Reply {
    /// That of the API server.
    Forward,
    /// This status and body. The connection ends with it, some seconds later.
    Answer(u16, String, u64),
    /// The same piece again and again, without an end.
    Flood(&'static str),
    /// None.
    Silence,
}

/// Decides about a request, by its first line and its head.
type Rule = Box<dyn FnMut(&str, &str) -> Reply + Send>;

pub(crate) struct Front {
    port: u16,
    rule: Arc<Mutex<Rule>>,
    _proxy: TestProxy,
    _task: JoinSet<()>,
}

impl Front {
    pub(crate) async fn start(cluster: &TestKubernetes) -> Front {
        let proxy = cluster.proxy();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pass: Rule = Box::new(|_, _| Reply::Forward);
        let rule = Arc::new(Mutex::new(pass));
        let (mut task, rules, behind) = (JoinSet::new(), Arc::clone(&rule), proxy.port);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, Arc::clone(&rules), behind));
                while connections.try_join_next().is_some() {}
            }
        });
        Front {
            port,
            rule,
            _proxy: proxy,
            _task: task,
        }
    }

    /// Changes the rule for requests from now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&str, &str) -> Reply + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Returns a kubeconfig for this server.
    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"http://127.0.0.1:{}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.port
        )
    }
}

/// Serves the requests of a connection: one, since each answer ends it.
async fn serve(mut client: TcpStream, rule: Arc<Mutex<Rule>>, behind: u16) {
    let mut request = Vec::new();
    let head = loop {
        let mut part = [0; 8192];
        match client.read(&mut part).await {
            Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
            _ => return,
        }
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let reply = (rule.lock().unwrap())(&line, &text);
    match reply {
        Reply::Forward => {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", behind)).await else {
                return;
            };
            let closed = text.replacen("\r\n", "\r\nconnection: close\r\n", 1);
            let _ = server.write_all(closed.as_bytes()).await;
            let _ = server.write_all(&request[head..]).await;
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Reply::Answer(status, body, seconds) => {
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = client.write_all(answer.as_bytes()).await;
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
        }
        Reply::Flood(piece) => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
            let _ = client.write_all(head.as_bytes()).await;
            let pieces = piece.repeat(64 * 1024 / piece.len());
            while client.write_all(pieces.as_bytes()).await.is_ok() {}
        }
        Reply::Silence => tokio::time::sleep(std::time::Duration::from_secs(600)).await,
    }
}

/// Returns the body of an answer that is no success.
pub(crate) fn status(code: u16, reason: &str) -> String {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "so it is", "reason": reason, "code": code,
    })
    .to_string()
}
