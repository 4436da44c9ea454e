//! Settings of the server and of its streams under which messages that were acknowledged can be lost. They are reported, not refused:
//! whoever tries Tagtrail out may want them.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Info, PersistenceMode, StorageType};
use serde_json::Value;

use crate::BusError;
use crate::topology::Stream;

/// Reports what is weak in the log.
pub(crate) async fn report(context: &jetstream::Context, monitor_url: Option<&str>) {
    let mut weak = Vec::new();
    if let Some(url) = monitor_url {
        match varz(url).await {
            Ok(varz) => weak.extend(of_server(&varz)),
            Err(cause) => tracing::warn!(
                "can't see whether nats-server syncs each message: {cause}; NATS_MONITOR_URL is its HTTP port, such as http://127.0.0.1:8222"
            ),
        }
    }
    match of_streams(context).await {
        Ok(found) => weak.extend(found),
        Err(error) => tracing::warn!("can't see how the streams are kept: {error}"),
    }
    for weakness in weak {
        tracing::warn!("{weakness}");
    }
}

/// The general state of a server, as its monitoring port tells it.
async fn varz(url: &str) -> Result<Value, String> {
    let answer = async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(3))
            .build()?;
        let url = format!("{}/varz", url.trim_end_matches('/'));
        client
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await
    };
    answer
        .await
        .map_err(|error: reqwest::Error| tagtrail_daemon::chain(&error.without_url()))
}

/// Of the server, by its `/varz`.
fn of_server(varz: &Value) -> Option<String> {
    let config = &varz["jetstream"]["config"];
    if config["sync_always"] == true {
        return None;
    }
    let interval = config["sync_interval"]
        .as_u64()
        .map(Duration::from_nanos)
        .unwrap_or_default();
    Some(format!(
        "nats-server syncs to disk only every {interval:?}: a power cut loses what it acknowledged since, pushes that got 2xx among it; set `sync_interval: always` in the jetstream block of its configuration"
    ))
}

async fn of_streams(context: &jetstream::Context) -> Result<Vec<String>, BusError> {
    let mut weak = Vec::new();
    for stream in Stream::ALL {
        let handle = context.get_stream(stream.name()).await.map_err(|error| {
            BusError::Unreachable(format!("asking for stream {}: {error}", stream.name()))
        })?;
        weak.extend(of_stream(stream, handle.cached_info()));
    }
    Ok(weak)
}

/// Of one stream. What REVISIONS and ROLLOUTS hold is in Postgres too, and MANIFESTS soon; the canary is worth nothing.
fn of_stream(stream: Stream, info: &Info) -> Option<String> {
    let name = stream.name();
    let clustered = info
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.name.as_deref())
        .is_some_and(|name| !name.is_empty());
    let the_only_copy = matches!(
        stream,
        Stream::Pushes | Stream::Unresolved | Stream::Quarantine
    );
    if clustered && info.config.num_replicas == 1 && stream != Stream::Canary {
        return Some(format!(
            "stream {name} has one copy on a cluster: while its server is away Tagtrail stands still, and its disk is the only one; set TAGTRAIL_NATS_REPLICAS=3"
        ));
    }
    if the_only_copy && info.config.persist_mode == Some(PersistenceMode::Async) {
        return Some(format!(
            "stream {name} acknowledges before it has written (persist_mode async): a crash loses what it acknowledged; make it anew without"
        ));
    }
    if the_only_copy && info.config.storage == StorageType::Memory {
        return Some(format!(
            "stream {name} is kept in memory: a restart of nats-server loses it; make it anew with storage file"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::of_server;

    #[test]
    fn only_a_server_that_syncs_each_message_is_strong() {
        let varz = |config: Value| json!({ "jetstream": { "config": config } });
        assert_eq!(of_server(&varz(json!({ "sync_always": true }))), None);
        for weak in [
            varz(json!({ "sync_interval": 120_000_000_000_u64 })),
            varz(json!({})),
            json!({}),
        ] {
            assert!(of_server(&weak).is_some_and(|text| text.contains("`sync_interval: always`")));
        }
    }
}
