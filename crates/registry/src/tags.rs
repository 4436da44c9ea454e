//! Lists the tags of a repository by pages (OCI distribution specification 1.1, "Listing Tags").

use reqwest::header::LINK;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tagtrail_proto::{Repository, Tag};

use crate::answer;
use crate::client::RegistryClient;
use crate::error::AskError;

/// Tags requested in a page. Some registries send fewer, some all at once.
const PAGE: usize = 1000;
/// Bytes of a page: about 30,000 tags, for registries that send all at once.
const MAX_PAGE: usize = 4 * 1024 * 1024;

/// A page of the tags of a repository.
#[derive(Debug)]
pub struct TagPage {
    /// The tags. Names outside the grammar of tags are left out: nobody can pull them.
    pub tags: Vec<Tag>,
    /// The address of the next page.
    pub next: Option<NextPage>,
}

/// The address of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPage(Url);

#[derive(Deserialize)]
struct TagList {
    // Some registries send `null` for an empty list.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// Returns the first page of a repository's tags, or the page at `page`. `None`: the registry
    /// has no such repository.
    ///
    /// # Errors
    /// [`AskError`] says whether to retry, and when.
    pub async fn tags(
        &self,
        repository: &Repository,
        page: Option<&NextPage>,
    ) -> Result<Option<TagPage>, AskError> {
        let url = match page {
            Some(NextPage(url)) => url.clone(),
            None => self.url(&format!("v2/{repository}/tags/list?n={PAGE}"))?,
        };
        self.question(self.list(&url, repository)).await
    }

    async fn list(&self, url: &Url, repository: &Repository) -> Result<Option<TagPage>, AskError> {
        let response = self.ask(Method::GET, url, repository, None).await?;
        match response.status() {
            StatusCode::OK => {
                let next = self.next(url, &response)?;
                let body = answer::body(response, MAX_PAGE).await?;
                if body.len() > MAX_PAGE {
                    let most = MAX_PAGE >> 20;
                    return Err(AskError::Failed(format!(
                        "a page of tags is larger than {most} MiB"
                    )));
                }
                let list: TagList = serde_json::from_slice(&body).map_err(|error| {
                    AskError::Failed(format!("its list of tags can't be read: {error}"))
                })?;
                let tags = list.tags.unwrap_or_default();
                let tags = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
                Ok(Some(TagPage { tags, next }))
            }
            StatusCode::NOT_FOUND => answer::absent(response).await.map(|()| None),
            _ => Err(answer::refusal(response).await),
        }
    }

    /// Reads `Link: </v2/…/tags/list?n=…&last=…>; rel="next"` (RFC 8288), within the registry's
    /// origin.
    fn next(&self, url: &Url, response: &Response) -> Result<Option<NextPage>, AskError> {
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
        Ok(Some(NextPage(here)))
    }
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
