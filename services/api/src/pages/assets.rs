//! The style sheet and the script. Their addresses hold a hash of their content, so that browsers
//! keep them for good and a new version is fetched at once.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use tagtrail_proto::Digest;

use crate::shared::Shared;

const STYLE: &str = include_str!("assets/tagtrail.css");
const SCRIPT: &str = include_str!("assets/tagtrail.js");

/// The address of the style sheet.
pub(crate) static STYLE_ADDRESS: LazyLock<String> = LazyLock::new(|| address(STYLE, "css"));
/// The address of the script.
pub(crate) static SCRIPT_ADDRESS: LazyLock<String> = LazyLock::new(|| address(SCRIPT, "js"));

fn address(content: &str, ending: &str) -> String {
    let digest = Digest::sha256_of(content.as_bytes());
    let hash = digest.as_bytes().iter().rev().take(8);
    let mut address = String::from("/assets/");
    for byte in hash {
        let _ = write!(address, "{byte:02x}");
    }
    let _ = write!(address, "/tagtrail.{ending}");
    address
}

/// Returns the routes of both, and of `/robots.txt`: nothing here is for search engines.
pub(crate) fn routes() -> Router<Shared> {
    let kept = (CACHE_CONTROL, "public, max-age=31536000, immutable");
    let style = [(CONTENT_TYPE, "text/css; charset=utf-8"), kept.clone()];
    let script = [(CONTENT_TYPE, "text/javascript; charset=utf-8"), kept];
    let robots = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    Router::new()
        .route(&STYLE_ADDRESS, get(async || (style, STYLE)))
        .route(&SCRIPT_ADDRESS, get(async || (script, SCRIPT)))
        .route(
            "/robots.txt",
            get(async || (robots, "User-agent: *\nDisallow: /\n")),
        )
}
