//! HTTP clients.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect};

/// Longest wait for a TCP and TLS connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Starts an HTTP client whose requests take at most `timeout`, answer included.
///
/// It ignores proxies of the environment and follows no redirect: what it sends may hold a secret, which only the configured
/// address may receive.
pub fn client(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(CONNECT)
        .user_agent(concat!("tagtrail/", env!("CARGO_PKG_VERSION")))
}
