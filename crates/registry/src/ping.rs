//! A check of a registry: that it is one, that it accepts our credentials, and that its clock is
//! right.

use reqwest::header::{AUTHORIZATION, DATE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use time::{Duration, OffsetDateTime};

use crate::answer::{http_date, refusal};
use crate::auth::Challenge;
use crate::client::RegistryClient;
use crate::error::AskError;

/// The result of a check of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The authentication that the registry asks for: `Basic` or `Bearer`. `None`: no known scheme.
    pub scheme: Option<&'static str>,
    /// The least time by which the registry's clock is ahead of ours (negative: behind; zero: no
    /// difference proved). `None`: the answer has no date.
    pub ahead: Option<Duration>,
    /// The answer to the configured credentials.
    pub admitted: Result<(), AskError>,
}

impl RegistryClient {
    /// Checks that the registry runs and accepts our credentials: `GET /v2/` (OCI distribution
    /// specification, `end-1`).
    ///
    /// # Errors
    /// The registry did not answer. A refusal is no error, but [`Ping::admitted`].
    pub async fn ping(&self) -> Result<Ping, AskError> {
        let url = self.base.join("v2/").map_err(|_| {
            AskError::Refused("the configured url can't be joined with a path".to_owned())
        })?;
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
        let admitted = match self
            .auth
            .header_without_repository(&self.client, challenge)
            .await
        {
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
                "the registry redirects to {}: if that is the right registry, configure it as url",
                location.origin().ascii_serialization()
            ),
            None => "the registry redirects to nowhere".to_owned(),
        }));
    }
    if status == StatusCode::NOT_FOUND {
        return Err(AskError::Refused(
            "the server answers 404 to /v2/, which every registry has: check url".to_owned(),
        ));
    }
    Err(refusal(response).await)
}

/// Returns the least time by which a clock is ahead of ours, if it reported `told` (whole seconds)
/// between the two times of our clock.
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
    fn the_duration_of_the_request_does_not_count_as_a_difference_of_clocks() {
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
