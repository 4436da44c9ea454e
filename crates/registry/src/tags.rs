//! Lists the tags of a repository by pages (OCI distribution specification 1.1, "Listing Tags").

use reqwest::header::LINK;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tagtrail_proto::{Repository, Tag, clean_text};

use crate::answer;
use crate::client::{RegistryClient, Request};
use crate::error::AskError;

/// Tags requested in a page. Some registries send fewer, some all at once.
const PAGE: usize = 1000;
/// Bytes of a page: about 30,000 tags, for registries that send all at once.
const MAX_PAGE: usize = 4 * 1024 * 1024;
/// The media type of a list of tags. Some registries refuse an `Accept` header without this type.
const LIST: &str = "application/json";
/// Tags kept before the last tag of a page, from which a refused next page is requested again.
const EARLIER: usize = 4;

/// Bytes of a cursor that are put into an error message.
const MAX_CURSOR: usize = 128;

/// The answer to the request of a page of tags.
#[derive(Debug)]
pub enum TagList {
    /// A page.
    Page(TagPage),
    /// The registry has no such repository.
    Absent,
    /// The registry refuses this page, which is not the first one: its cursor is no longer valid,
    /// for example because the tag that the cursor names was deleted. The text is the answer.
    PageRefused(String),
}

/// A page of the tags of a repository.
#[derive(Debug)]
pub struct TagPage {
    /// The tags. Names outside the grammar of tags are left out: nobody can pull them.
    pub tags: Vec<Tag>,
    /// True if the page has no name at all, not even one outside the grammar.
    pub is_empty: bool,
    /// The address of the next page.
    pub next: Option<NextPage>,
}

/// The address of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPage {
    url: Url,
    /// The last names of the page before, without the very last one.
    earlier: Vec<String>,
    guessed: bool,
}

impl NextPage {
    /// Returns true if the registry named no next page, but the page before was full: some
    /// registries never send a link. A registry may ignore the cursor of such an address, and send
    /// the same page again.
    #[must_use]
    pub fn is_guessed(&self) -> bool {
        self.guessed
    }

    /// Returns the address of the page that begins one tag earlier. `None`: no earlier tag is
    /// known, or the cursor is no tag.
    #[must_use]
    pub fn earlier(mut self) -> Option<NextPage> {
        let name = self.earlier.pop()?;
        self.url = after(&self.url, &name);
        Some(self)
    }
}

#[derive(Deserialize)]
struct TagNames {
    // Some registries send `null` for an empty list.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// Returns the first page of a repository's tags, or the page at `page`.
    ///
    /// # Errors
    /// [`AskError`] says whether to retry, and when.
    pub async fn tags(
        &self,
        repository: &Repository,
        page: Option<&NextPage>,
    ) -> Result<TagList, AskError> {
        let url = match page {
            Some(page) => page.url.clone(),
            None => self.url(&format!("v2/{repository}/tags/list?n={PAGE}"))?,
        };
        self.question(self.list(&url, repository, page.is_none()))
            .await
    }

    async fn list(
        &self,
        url: &Url,
        repository: &Repository,
        is_first: bool,
    ) -> Result<TagList, AskError> {
        let response = self.ask(url, &Request::get(repository, LIST)).await?;
        match response.status() {
            StatusCode::OK => {
                let link = self.next(url, &response)?;
                let body = answer::body(response, MAX_PAGE).await?;
                if body.len() > MAX_PAGE {
                    let most = MAX_PAGE >> 20;
                    return Err(AskError::Failed(format!(
                        "a page of tags is larger than {most} MiB"
                    )));
                }
                let list: TagNames = serde_json::from_slice(&body).map_err(|error| {
                    AskError::Failed(format!("its list of tags can't be read: {error}"))
                })?;
                let names = list.tags.unwrap_or_default();
                Ok(TagList::Page(TagPage {
                    tags: names.iter().filter_map(|tag| tag.parse().ok()).collect(),
                    is_empty: names.is_empty(),
                    next: next_page(url, link, &names),
                }))
            }
            // The first page was answered, so neither credentials nor address are wrong.
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::GONE if !is_first => {
                let refusal = answer::refusal(response).await;
                let page = match cursor(url) {
                    Some(tag) => format!("after {}", clean_text(&tag, MAX_CURSOR)),
                    None => "with a cursor of its own".to_owned(),
                };
                Ok(TagList::PageRefused(format!(
                    "for the page {page}, {refusal}"
                )))
            }
            StatusCode::NOT_FOUND => answer::absent(response).await.map(|()| TagList::Absent),
            _ => Err(answer::refusal(response).await),
        }
    }

    /// Reads `Link: </v2/…/tags/list?n=…&last=…>; rel="next"` (RFC 8288), within the registry's
    /// origin.
    fn next(&self, url: &Url, response: &Response) -> Result<Option<Url>, AskError> {
        let links = response.headers().get_all(LINK);
        let next = links
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(target);
        let Some(next) = next else {
            return Ok(None);
        };
        let next = url
            .join(next)
            .map_err(|_| AskError::Failed("its link to the next page is not a URL".to_owned()))?;
        // Behind a proxy some registries name themselves with http. Only path and query are used.
        let mut here = url.clone();
        here.set_path(next.path());
        here.set_query(next.query());
        if here == *url || next.host_str() != url.host_str() {
            return Err(AskError::Failed(
                "its link to the next page leads to another host, or to the same page".to_owned(),
            ));
        }
        Ok(Some(here))
    }
}

/// Returns the address of the page after a page with these names. Without a link, a full page is
/// followed by the page after its last name.
fn next_page(url: &Url, link: Option<Url>, names: &[String]) -> Option<NextPage> {
    let (last, before) = names.split_last().map_or((None, names), |(last, before)| {
        (Some(last.as_str()), before)
    });
    let guessed = link.is_none();
    let url = match link {
        Some(link) => link,
        None if names.len() == PAGE && cursor(url).as_deref() != last => after(url, last?),
        None => return None,
    };
    // A cursor of another kind can't be moved to an earlier tag.
    let at_last = last.is_some() && cursor(&url).as_deref() == last;
    let earlier = match at_last {
        true => before[before.len().saturating_sub(EARLIER)..].to_vec(),
        false => Vec::new(),
    };
    Some(NextPage {
        url,
        earlier,
        guessed,
    })
}

/// Returns the tag after which a page begins.
fn cursor(url: &Url) -> Option<String> {
    let last = url.query_pairs().find(|(key, _)| key == "last");
    last.map(|(_, value)| value.into_owned())
}

/// Returns the address of the page after a tag.
fn after(url: &Url, tag: &str) -> Url {
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| key != "last")
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    let mut url = url.clone();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair("last", tag);
    url
}

/// Returns the target of a link with `rel=next`.
fn target(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
    });
    is_next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_the_next_page_is_found() {
        for (link, expected) in [
            (
                r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
                Some("/v2/a/tags/list?n=2&last=b"),
            ),
            ("<x>;rel=next", Some("x")),
            (r#"<x>; title="rel=next"; REL="next""#, Some("x")),
            (r#"<x>; rel="prev""#, None),
            ("x; rel=next", None),
            ("<x", None),
            ("", None),
        ] {
            assert_eq!(target(link), expected, "{link}");
        }
    }
}
