//! Standard output of `tagtrail up`: one screen at the start, then a line for each revision and
//! each ended rollout. The log goes to standard error.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;
use tagtrail_bus::Subscription;
use tagtrail_proto::{Event, Revision, Rollout, RolloutState};
use time::{OffsetDateTime, UtcOffset};
use tokio_util::sync::CancellationToken;

/// Columns of a line, and of a digest in it.
const WIDTH: usize = 80;
const DIGEST: usize = 12;

/// Returns the first screen: the addresses without passwords, and the next commands.
pub(super) fn first(endpoints: &Value, data: &Path) -> String {
    let address = |key: &str| {
        let url = endpoints[key].as_str().unwrap_or("none");
        without_password(url)
    };
    let data = data.display();
    format!(
        "Tagtrail is ready.\n\n\
         \x20 pages     {}/\n\
         \x20 webhooks  {}/hooks/NAME\n\
         \x20 API       {}\n\
         \x20 admin     {}\n\
         \x20 NATS      {}\n\
         \x20 Postgres  {}\n\n\
         Addresses with passwords: {data}/endpoints.json\n\n\
         Next, in another terminal:\n\n\
         \x20 eval \"$(tagtrail env --data {data})\"\n\
         \x20 tagtrail doctor --setup   # settings for each registry\n\
         \x20 tagtrail watch            # changes of tags, as they come\n",
        address("api"),
        address("gateway"),
        address("api"),
        address("admin"),
        address("nats"),
        address("postgres"),
    )
}

/// Returns an address without user and password.
fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// Prints a line for each revision and each ended rollout, until a stop is requested. A message
/// that is published during a disconnection is missed: history and `tagtrail rollouts` have all.
pub(super) async fn follow(nats: &str, stop: &CancellationToken) -> anyhow::Result<()> {
    let listen = |subject| Subscription::listen(nats, subject, "tagtrail-up", None, stop);
    let mut revisions = listen("tagtrail.revision.>").await?;
    let mut rollouts = listen("tagtrail.rollout.>").await?;
    loop {
        let line = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(message) = revisions.next() => {
                serde_json::from_slice(&message).ok().map(|event| of_revision(&event))
            }
            Some(message) = rollouts.next() => {
                serde_json::from_slice(&message).ok().and_then(|event| of_rollout(&event))
            }
            else => return Ok(()),
        };
        if let Some(line) = line {
            // Nobody may read standard output; the services go on.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

fn of_revision(event: &Event<Revision>) -> String {
    let revision = &event.data;
    let digest = revision.digest.as_ref().map(ToString::to_string);
    let hex = digest
        .as_deref()
        .and_then(|digest| digest.split(':').nth(1));
    let short: String = hex.unwrap_or("-").chars().take(DIGEST).collect();
    let name = format!(
        "{}/{}:{}",
        revision.registry, revision.repository, revision.tag
    );
    let late = if revision.late { " (late)" } else { "" };
    // The time that history and `tagtrail watch` have, too. It may be of another day.
    let at = revision.occurred_at.to_offset(UtcOffset::UTC);
    let day = match at.date() == revision.recorded_at.to_offset(UtcOffset::UTC).date() {
        true => String::new(),
        false => format!(" of {}", at.date()),
    };
    row(
        at,
        &format!("{:<9} {short:<DIGEST$}", revision.kind.to_string()),
        &format!("{name} #{}{late}{day}", revision.revision),
    )
}

/// Returns the line of a rollout that has ended.
fn of_rollout(event: &Event<Rollout>) -> Option<String> {
    let rollout = &event.data;
    let ended = match rollout.state {
        RolloutState::Held
        | RolloutState::AwaitingApproval
        | RolloutState::Pending
        | RolloutState::Running
        | RolloutState::Watching => return None,
        RolloutState::Succeeded
        | RolloutState::Failed
        | RolloutState::Superseded
        | RolloutState::Rejected
        | RolloutState::Cancelled => rollout.state.to_string(),
    };
    let error = rollout.error.as_deref().map(|error| format!(": {error}"));
    Some(row(
        event.time,
        &format!("rollout   {ended:<DIGEST$}"),
        &format!(
            "{} #{}{}",
            rollout.trigger,
            rollout.number,
            error.unwrap_or_default()
        ),
    ))
}

/// Returns a line of at most 80 columns.
fn row(time: OffsetDateTime, left: &str, right: &str) -> String {
    let (hour, minute, second) = time.to_hms();
    let line = format!("{hour:02}:{minute:02}:{second:02}  {left} {right}");
    match line.char_indices().nth(WIDTH) {
        None => line,
        Some((end, _)) => line
            .get(..end)
            .map(|cut| cut.chars().take(WIDTH - 1).chain(['…']).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_screen_has_addresses_without_passwords_and_fits_80_columns() {
        let endpoints = serde_json::json!({
            "gateway": "http://127.0.0.1:8400",
            "api": "http://127.0.0.1:8401",
            "admin": null,
            "nats": "nats://operator:s3cret@127.0.0.1:4222",
            "postgres": "postgres://tagtrail:s3cret@127.0.0.1:5432/tagtrail",
        });
        let screen = first(&endpoints, Path::new("/var/lib/tagtrail"));
        assert!(
            !screen.contains("s3cret") && !screen.contains('@'),
            "{screen}"
        );
        for text in [
            "nats://127.0.0.1:4222\n",
            "postgres://127.0.0.1:5432/tagtrail\n",
            "pages     http://127.0.0.1:8401/\n",
            "http://127.0.0.1:8400/hooks/NAME\n",
            "tagtrail env --data /var/lib/tagtrail",
        ] {
            assert!(screen.contains(text), "{screen}");
        }
        assert!(
            screen.lines().count() <= 24 && screen.lines().all(|line| line.chars().count() <= 80)
        );
    }

    #[test]
    fn a_long_line_is_cut_at_80_columns() {
        let long = row(
            OffsetDateTime::UNIX_EPOCH,
            "rollout   failed",
            &"é".repeat(90),
        );
        assert_eq!(long.chars().count(), WIDTH);
        assert!(long.starts_with("00:00:00  rollout   failed é") && long.ends_with('…'));
        assert_eq!(row(OffsetDateTime::UNIX_EPOCH, "a", "b"), "00:00:00  a b");
    }
}
