//! HTTP clients.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};

/// The time-out of opening a TCP and TLS connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Returns the builder of an HTTP client whose requests, response body included, take at most
/// `timeout`.
///
/// The client ignores proxies of the environment and follows no redirect: a request may hold a
/// secret, which only the configured address may receive.
pub fn client(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(CONNECT)
        .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")))
}
