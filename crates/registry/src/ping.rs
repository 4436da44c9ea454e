//! Asking a registry for nothing in particular: is it one, does it let us in, and what time does it think it is?

use reqwest::header::{AUTHORIZATION, DATE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use time::{Duration, OffsetDateTime};

use crate::answer::{http_date, refusal};
use crate::auth::Challenge;
use crate::client::RegistryClient;
use crate::error::AskError;

/// How a registry answers when it is asked for nothing in particular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// How it asks who we are: `Basic` or `Bearer`. `None`: it does not ask, or in no way that is known.
    pub scheme: Option<&'static str>,
    /// How far its clock is at least ahead of ours (behind: negative); zero if it may be the same. `None`: it does not tell.
    pub ahead: Option<Duration>,
    /// Whether it lets us in with what is configured.
    pub admitted: Result<(), AskError>,
}

impl RegistryClient {
    /// Asks whether it is there, and whether it takes our credentials: `GET /v2/` (OCI distribution specification, `end-1`).
    ///
    /// # Errors
    /// It did not answer at all. What it answered is in [`Ping::admitted`].
    pub async fn ping(&self) -> Result<Ping, AskError> {
        let url = self
            .base
            .join("v2/")
            .map_err(|_| AskError::Refused("its URL can't be joined with a path".to_owned()))?;
        let asked = OffsetDateTime::now_utc();
        let first = self.client.get(url.clone()).send().await?;
        let answered = OffsetDateTime::now_utc();
        let date = first.headers().get(DATE);
        let date = date.and_then(|value| http_date(value.to_str().ok()?));
        let ahead = date.map(|date| ahead(date, asked, answered));
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(Ping {
                scheme: None,
                ahead,
                admitted: verdict(first).await,
            });
        }
        let challenges = first.headers().get_all(WWW_AUTHENTICATE);
        let challenge =
            Challenge::choose(challenges.iter().filter_map(|value| value.to_str().ok()));
        let scheme = challenge.as_ref().map(Challenge::scheme);
        let admitted = match self.auth.header_without_repository(&self.client, challenge).await {
            Ok(shown) => match self
                .client
                .get(url)
                .header(AUTHORIZATION, shown)
                .send()
                .await
            {
                Ok(second) => verdict(second).await,
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        Ok(Ping {
            scheme,
            ahead,
            admitted,
        })
    }
}

async fn verdict(response: Response) -> Result<(), AskError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    if status.is_redirection() {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|value| response.url().join(value.to_str().ok()?).ok());
        return Err(AskError::Refused(match location {
            Some(location) => format!(
                "it redirects to {}: if that is the registry, configure it as url",
                location.origin().ascii_serialization()
            ),
            None => "it redirects to nowhere".to_owned(),
        }));
    }
    if status == StatusCode::NOT_FOUND {
        return Err(AskError::Refused(
            "it answers 404 to /v2/, which every registry has: check url".to_owned(),
        ));
    }
    Err(refusal(response).await)
}

/// The least that a clock can be ahead of ours which told this time, in whole seconds, between these moments of ours.
fn ahead(told: OffsetDateTime, asked: OffsetDateTime, answered: OffsetDateTime) -> Duration {
    let (least, most) = (told - answered, told + Duration::SECOND - asked);
    match () {
        () if least.is_positive() => least,
        () if most.is_negative() => most,
        () => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_only_as_far_as_the_time_of_the_exchange_does_not_explain() {
        let at = |seconds: f64| OffsetDateTime::UNIX_EPOCH + Duration::seconds_f64(seconds);
        for (told, asked, answered, expected) in [
            (100.0, 100.2, 100.3, 0.0),
            (100.0, 100.9, 101.0, 0.0),
            (100.0, 99.0, 109.0, 0.0),
            (110.0, 100.2, 100.5, 9.5),
            (90.0, 100.5, 100.7, -9.5),
            (90.0, 91.5, 109.0, -0.5),
        ] {
            assert_eq!(
                ahead(at(told), at(asked), at(answered)).as_seconds_f64(),
                expected,
                "{told} {asked} {answered}"
            );
        }
    }
}
