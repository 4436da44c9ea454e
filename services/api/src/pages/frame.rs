//! The frame of a page: head, navigation, foot, and the headers of its response.

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, VARY,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::http::error::Told;
use crate::pages::assets::{SCRIPT_ADDRESS, STYLE_ADDRESS};
use crate::pages::part::digest::copy;
use crate::pages::part::icon::{drawings, icon};
use crate::pages::part::image::did_you_mean;
use crate::pages::part::text::visible;
use crate::pages::part::when::{Form, time, zone};
use crate::pages::reader::Reader;

/// Everything that a page may load comes from this server, and nothing in a page is code.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (VARY, "Cookie"),
];
const TRAIL: &str = r##"<svg viewBox="0 0 22 22" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round"><path d="M4 18c0-6 14-4 14-12"/><circle cx="4" cy="18" r="2.4" fill="currentColor"/><circle cx="18" cy="5" r="2.4" fill="currentColor"/><circle cx="11" cy="11.6" r="1.6" fill="currentColor"/></svg>"##;
const FAVICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 22 22' fill='none' stroke='%2300636b' stroke-width='3' stroke-linecap='round'%3E%3Cpath d='M4 18c0-6 14-4 14-12'/%3E%3C/svg%3E";

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Home,
    Images,
    Triggers,
    Rollouts,
    Reports,
    Sources,
    /// A page that is in none of them.
    Other,
}

const SECTIONS: [(Section, &str, &str); 6] = [
    (Section::Home, "/", "Home"),
    (Section::Images, "/i", "Images"),
    (Section::Triggers, "/triggers", "Triggers"),
    (Section::Rollouts, "/rollouts", "Rollouts"),
    (Section::Reports, "/reports", "Reports"),
    (Section::Sources, "/sources", "Sources"),
];

/// The parts of a frame that differ between pages.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The name of the page in the browser.
    pub(crate) title: String,
    pub(crate) section: Section,
    /// Address of the same content as JSON.
    pub(crate) json: Option<String>,
    /// Address of the same content as CSV.
    pub(crate) csv: Option<String>,
    /// The command that prints the same.
    pub(crate) cli: Option<String>,
    /// Address of the live feed that the page follows.
    pub(crate) live: Option<&'static str>,
    /// The question in the search field.
    pub(crate) question: String,
    /// Whether navigation and search are shown: not before signing in.
    pub(crate) whole: bool,
}

impl Frame {
    /// Returns a frame with neither other forms nor a live feed.
    pub(crate) fn new(title: impl Into<String>, section: Section) -> Frame {
        Frame {
            title: title.into(),
            section,
            json: None,
            csv: None,
            cli: None,
            live: None,
            question: String::new(),
            whole: true,
        }
    }

    /// Names the list of the API that the page shows: its address as JSON, and as CSV.
    pub(crate) fn list(&mut self, address: String) {
        let joint = if address.contains('?') { '&' } else { '?' };
        self.csv = Some(format!("{address}{joint}format=csv"));
        self.json = Some(address);
    }

    /// Draws the page around its content.
    pub(crate) fn page(&self, reader: &Reader, content: &Markup) -> Html<String> {
        let body = html! {
            a class="skip" href="#main" { "Skip to the content" }
            (self.top())
            main id="main" { (content) }
            (self.foot(reader))
        }
        .into_string();
        let page = html! {
            (DOCTYPE)
            html lang="en" data-theme=[reader.theme] {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { (visible(&self.title)) " · Tagtrail" }
                    link rel="stylesheet" href=(*STYLE_ADDRESS);
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href=(FAVICON);
                    script src=(*SCRIPT_ADDRESS) defer {}
                }
                body data-live=[self.live] {
                    (PreEscaped(&body))
                    (drawings(&body))
                }
            }
        };
        Html(page.into_string())
    }

    fn top(&self) -> Markup {
        html! {
            header class="top" {
                div {
                    a class="logo" href="/" { (PreEscaped(TRAIL)) "Tagtrail" }
                    @if self.whole {
                        nav class="nav" aria-label="Pages" {
                            @for (section, address, word) in SECTIONS {
                                a href=(address) aria-current=[(section == self.section).then_some("page")] { (word) }
                            }
                        }
                        form class="find" role="search" action="/search" {
                            (icon("search"))
                            input type="search" name="q" value=(self.question) aria-label="Find an image, digest, commit or rollout"
                                placeholder="Image, digest, commit" autocomplete="off" spellcheck="false";
                            kbd aria-hidden="true" { "Ctrl K" }
                        }
                        div class="prefs" {
                            button type="button" class="ghost" data-clock aria-pressed="false" title="The clock of all times: UTC, or your own" { "UTC" }
                            button type="button" class="ghost" data-theme-next aria-label="Theme: as the system" { (icon("theme")) }
                        }
                    }
                }
            }
        }
    }

    fn foot(&self, reader: &Reader) -> Markup {
        let forms = self.json.is_some() || self.csv.is_some() || self.cli.is_some();
        html! {
            footer class="foot" {
                @if forms { span { "This page as" } }
                @if let Some(json) = &self.json { span { a href=(json) { "JSON" } } }
                @if let Some(csv) = &self.csv { span { a href=(csv) { "CSV" } } }
                @if let Some(cli) = &self.cli {
                    span { code { (cli) } (copy(cli, "Copy the command")) }
                }
                span class="push" {
                    "Tagtrail " (env!("CARGO_PKG_VERSION")) " · as of " (time(reader.now, Form::Full)) " " (zone())
                    @match &reader.holder {
                        Some(holder) => { " · " (holder.name) },
                        None if reader.everybody => " · not signed in, acts as local",
                        None => {},
                    }
                }
                @if reader.holder.is_some() {
                    form method="post" action="/logout" { button { "Sign out" } }
                }
            }
        }
    }
}

/// Returns the way to a page, as links; the last step is the page itself.
pub(crate) fn crumbs(steps: &[(String, Option<String>)]) -> Markup {
    html! {
        nav class="crumb" aria-label="Where this is" {
            @for (place, (text, address)) in steps.iter().enumerate() {
                @if place > 0 { span aria-hidden="true" { "/" } }
                @match address {
                    Some(address) => a href=(address) { (text) },
                    None => span aria-current="page" { (text) },
                }
            }
        }
    }
}

/// Adds the headers that protect a page and its readers.
pub(crate) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let private = HeaderValue::from_static("private, no-cache");
    headers.entry(CACHE_CONTROL).or_insert(private);
    response
}

/// Shows a problem as a page.
pub(crate) async fn show_problem(request: Request, next: Next) -> Response {
    let known = request.extensions().get::<Reader>().cloned();
    let mut response = next.run(request).await;
    let Some(told) = response.extensions_mut().remove::<Told>() else {
        return response;
    };
    let reader = response.extensions_mut().remove::<Reader>().or(known);
    let Some(reader) = reader else {
        return response;
    };
    let status = response.status();
    let mut page = problem(&reader, status, &told).into_response();
    *page.status_mut() = status;
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && !page.headers().contains_key(name) && name != "content-length" {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

/// Draws the page of a problem.
pub(crate) fn problem(reader: &Reader, status: StatusCode, told: &Told) -> Html<String> {
    let heading = match status.as_u16() {
        404 => "Not found",
        409 => "This changed meanwhile",
        401 | 403 => "Not allowed",
        429 => "Too many requests",
        503 => "The history can't be read now",
        400..500 => "This can't be shown",
        _ => "Something went wrong here",
    };
    let mut frame = Frame::new(heading, Section::Other);
    frame.whole = status != StatusCode::UNAUTHORIZED;
    let content = html! {
        section class="card" {
            h1 { (heading) }
            p class="note warn" { (visible(&told.detail)) (did_you_mean(&told.similar)) }
            @if status == StatusCode::SERVICE_UNAVAILABLE {
                p { "Pushes are still accepted and kept; nothing is lost. This page works again as soon as the database answers." }
            }
            p class="meta" { span { code { (told.code) } } span { "HTTP " (status.as_u16()) } a href=(reader.address) { "Try again" } a href="/" { "Home" } a href="/i" { "Images" } a href="/triggers" { "Triggers" } }
        }
    };
    frame.page(reader, &content)
}
