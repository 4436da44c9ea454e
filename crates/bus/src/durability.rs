//! Settings of nats-server and of its streams under which acknowledged messages can be lost. They
//! are reported and not refused: a trial of Tagtrail may want them.

use std::time::Duration;

use async_nats::jetstream::stream::{Info, PersistenceMode, StorageType};
use serde_json::Value;

use crate::topology::Stream;
use crate::{Bus, BusError};

/// Logs each weak setting. Returns whether the server syncs each message; `None` if that is
/// unknown.
pub(crate) async fn report(bus: &Bus, monitor_url: Option<&str>) -> Option<bool> {
    let mut weak = Vec::new();
    let mut synced = None;
    if let Some(url) = monitor_url {
        match varz(url).await {
            Ok(varz) => {
                let of_server = of_server(&varz);
                synced = Some(of_server.is_none());
                weak.extend(of_server);
            }
            Err(cause) => tracing::warn!(
                "can't find out whether nats-server syncs each message: {cause}; NATS_MONITOR_URL must be its HTTP port, such as http://127.0.0.1:8222"
            ),
        }
    }
    match of_streams(bus).await {
        Ok(found) => weak.extend(found),
        Err(error) => tracing::warn!("can't read the settings of the streams: {error}"),
    }
    for weakness in weak {
        tracing::warn!("{weakness}");
    }
    synced
}

/// Returns the general state of a server, from its monitoring port.
async fn varz(url: &str) -> Result<Value, String> {
    let answer = async {
        let client = tagtrail_daemon::client(Duration::from_secs(3)).build()?;
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

/// Returns the weakness of a server, from its `/varz`.
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
        "nats-server syncs to disk only every {interval:?}: a power cut loses the messages acknowledged since, among them pushes that got 2xx; set `sync_interval: always` in the jetstream block of its configuration"
    ))
}

async fn of_streams(bus: &Bus) -> Result<Vec<String>, BusError> {
    let mut weak = Vec::new();
    let layout = bus.layout();
    for stream in layout.streams.iter().copied().chain(Stream::of_others()) {
        let handle = bus
            .context
            .get_stream(stream.name())
            .await
            .map_err(|error| {
                BusError::Unreachable(format!("asking for stream {}: {error}", stream.name()))
            })?;
        weak.extend(of_stream(stream, handle.cached_info()));
    }
    Ok(weak)
}

/// Returns the weakness of one stream. Postgres also holds the messages of REVISIONS and ROLLOUTS,
/// and soon those of MANIFESTS; CANARY has nothing to lose.
fn of_stream(stream: Stream, info: &Info) -> Option<String> {
    let name = stream.name();
    let clustered = info
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.name.as_deref())
        .is_some_and(|name| !name.is_empty());
    let the_only_copy = matches!(
        stream.kind(),
        Stream::Pushes | Stream::Unresolved | Stream::Quarantine
    );
    if clustered && info.config.num_replicas == 1 && stream != Stream::Canary {
        return Some(format!(
            "stream {name} has one copy on a cluster: Tagtrail stops while that server is down, and its disk holds the only copy; set TAGTRAIL_NATS_REPLICAS=3"
        ));
    }
    if the_only_copy && info.config.persist_mode == Some(PersistenceMode::Async) {
        return Some(format!(
            "stream {name} acknowledges messages before they are written (persist_mode async): a crash loses acknowledged messages; recreate the stream without that setting"
        ));
    }
    if the_only_copy && info.config.storage == StorageType::Memory {
        return Some(format!(
            "stream {name} is kept in memory: a restart of nats-server loses it; recreate the stream with storage file"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::of_server;

    #[test]
    fn every_setting_but_sync_always_is_reported() {
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
