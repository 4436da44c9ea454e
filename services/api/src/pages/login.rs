//! `/login` and `/logout`: a token is exchanged for a cookie.

use std::net::SocketAddr;

use axum::Extension;
use axum::extract::{ConnectInfo, Form, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use maud::html;
use serde::Deserialize;

use crate::http::error::Error;
use crate::http::session::{is_loopback, set_cookie};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section};
use crate::pages::reader::Reader;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_login",
    paths: &["/login"],
    open: true,
    stored: false,
    serve: || get(show).post(sign_in),
};
pub(crate) const OUT: Page = Page {
    id: "page_logout",
    paths: &["/logout"],
    open: true,
    stored: false,
    serve: || post(sign_out),
};

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

/// Without `Debug`: nothing may log the token.
#[derive(Deserialize)]
struct Given {
    token: String,
    #[serde(default)]
    next: String,
}

async fn show(reader: Reader, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    form(&reader, &asked.next, &headers, false).into_response()
}

/// Draws the form. One text answers a wrong and an unknown token.
fn form(reader: &Reader, next: &str, headers: &HeaderMap, wrong: bool) -> Html<String> {
    let mut frame = Frame::new("Sign in", Section::Other);
    frame.whole = false;
    let content = html! {
        section class="card login" {
            h1 { "Sign in" }
            @if wrong {
                p class="note bad" role="alert" { "This token opens nothing here. Check that it was copied whole." }
            }
            form method="post" action="/login" class="form" {
                input type="hidden" name="next" value=(here(next));
                label {
                    "Token"
                    input type="password" name="token" autocomplete="current-password" required aria-describedby="h";
                }
                p class="s" id="h" {
                    "The secret of a " code { "[[token]]" } " in tagtrail.toml. It is exchanged for a cookie that ends after 12 hours."
                }
                @if !is_loopback(headers) {
                    p class="s" { "The cookie is sent by https alone: by http this form brings you back here." }
                }
                button class="pri" { "Sign in" }
            }
        }
    };
    frame.page(reader, &content)
}

async fn sign_in(
    reader: Reader,
    State(shared): State<Shared>,
    remote: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Result<Response, Error> {
    let address = remote.map(|Extension(ConnectInfo(remote))| remote.ip());
    let tokens = shared.tokens.get();
    if tokens.is_empty() {
        return Ok(Redirect::to(&here(&given.next)).into_response());
    }
    let secret = given.token.trim();
    let value = match tokens.sign_in(secret.as_bytes(), reader.now) {
        Ok(value) => value,
        Err(refusal @ Error::Forbidden { .. }) => return Err(refusal),
        Err(_) => {
            if let Some(count) = shared.refusals.line(address) {
                tracing::warn!(?address, count, "refused to sign a person in: wrong token");
            }
            if shared.refusals.exceeded(address).await {
                return Err(Error::TooManyRefusals);
            }
            let again = form(&reader, &given.next, &headers, true);
            return Ok((StatusCode::UNAUTHORIZED, again).into_response());
        }
    };
    let cookie = set_cookie(&headers, &value).ok_or(Error::WrongToken)?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to(&here(&given.next))).into_response())
}

async fn sign_out(headers: HeaderMap) -> Result<Response, Error> {
    let cookie = set_cookie(&headers, "").ok_or(Error::NotFound)?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// Returns the address to which a person goes on: a path of this server, and no other place.
fn here(next: &str) -> String {
    let path = next.starts_with('/') && !next.starts_with("//");
    let plain = next
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    match path && plain && !next.starts_with("/login") {
        true => next.to_owned(),
        false => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_no_other_server() {
        for good in ["/", "/i/r.example.com/a:b?at=2026", "/d/sha256:00#x"] {
            assert_eq!(here(good), good);
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\r\nSet-Cookie: x",
            "/é",
            "/login?next=/",
        ] {
            assert_eq!(here(bad), "/", "{bad}");
        }
    }
}
