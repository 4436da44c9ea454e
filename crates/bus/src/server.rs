//! The fitness of nats-server, which any reconnection may have replaced with another one.

use async_nats::Client;

use crate::BusError;

/// Oldest supported server: per-stream persistence and conditions on another subject need it.
const MINIMUM: (u64, u64) = (2, 12);
/// The largest message of Tagtrail, and nats-server's own default: QUARANTINE keeps bodies of
/// registries.
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// Checks the version of the server that the client is connected to now.
///
/// # Errors
/// [`BusError::Unsuitable`].
pub(crate) fn check(client: &Client) -> Result<(), BusError> {
    check_version(&client.server_info().version)
}

fn check_version(version: &str) -> Result<(), BusError> {
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= MINIMUM => Ok(()),
        _ => Err(BusError::Unsuitable(format!(
            "nats-server {version} is too old: Tagtrail needs {}.{} or newer, because older ones lose data and can't fence; upgrade it (for `tagtrail up`, `make setup` fetches one)",
            MINIMUM.0, MINIMUM.1
        ))),
    }
}

/// Logs a limit of the server that refuses some messages of Tagtrail.
pub(crate) fn report(client: &Client) {
    let limit = client.server_info().max_payload;
    if limit < LARGEST_MESSAGE {
        tracing::warn!(
            "nats-server takes messages of {limit} bytes at most (max_payload): larger ones are refused, such as malformed bodies for QUARANTINE, and a registry sends such a body again and again; set max_payload to 1MB or more"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn servers_before_2_12_are_too_old() {
        for version in ["2.12.0", "2.15.1-RC.1", "3.0.0"] {
            check_version(version).unwrap();
        }
        for version in ["2.11.99", "1.4.0", "", "unknown"] {
            let error = check_version(version).unwrap_err().to_string();
            assert!(error.contains("is too old: Tagtrail needs 2.12"), "{error}");
        }
    }
}
