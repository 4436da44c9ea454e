//! Listing the tags of a repository, page by page (OCI distribution specification 1.1, "Listing Tags").

use reqwest::header::LINK;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tagtrail_proto::{Repository, Tag};

use crate::answer;
use crate::client::RegistryClient;
use crate::error::AskError;

/// Tags asked for at once. Some registries give less, some all.
const PAGE: usize = 1000;
/// A page has less: a registry that gives all at once has 30,000 tags by then.
const MAX_PAGE: usize = 4 * 1024 * 1024;

/// Some tags of a repository.
#[derive(Debug)]
pub struct Page {
    /// Those within the grammar of tags; nothing else can be pulled.
    pub tags: Vec<Tag>,
    /// Where the next page is.
    pub next: Option<NextPage>,
}

/// Where a page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPage(Url);

#[derive(Deserialize)]
struct TagList {
    // Some write `null` for none.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// A page of the repository's tags, the first or the next. `None`: the registry says that there is no such repository.
    ///
    /// # Errors
    /// [`AskError`] says whether asking again may help, and when.
    pub async fn tags(
        &self,
        repository: &Repository,
        page: Option<&NextPage>,
    ) -> Result<Option<Page>, AskError> {
        let url = match page {
            Some(NextPage(url)) => url.clone(),
            None => self.url(&format!("v2/{repository}/tags/list?n={PAGE}"))?,
        };
        self.question(self.list(&url, repository)).await
    }

    async fn list(&self, url: &Url, repository: &Repository) -> Result<Option<Page>, AskError> {
        let response = self.ask(Method::GET, url, repository, None).await?;
        match response.status() {
            StatusCode::OK => {
                let next = self.next(url, &response)?;
                let body = answer::body(response, MAX_PAGE).await?;
                if body.len() > MAX_PAGE {
                    let most = MAX_PAGE >> 20;
                    return Err(AskError::Failed(format!(
                        "a page of tags has more than {most} MiB"
                    )));
                }
                let list: TagList = serde_json::from_slice(&body).map_err(|error| {
                    AskError::Failed(format!("its list of tags is none: {error}"))
                })?;
                let tags = list.tags.unwrap_or_default();
                let tags = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
                Ok(Some(Page { tags, next }))
            }
            StatusCode::NOT_FOUND => answer::absent(response).await.map(|()| None),
            _ => Err(answer::refusal(response).await),
        }
    }

    /// `Link: </v2/…/tags/list?n=…&last=…>; rel="next"` (RFC 8288), within the registry's origin.
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
            .map_err(|_| AskError::Failed("its link to the next page is none".to_owned()))?;
        // Behind a proxy some name themselves by http. The path is what counts.
        let mut here = url.clone();
        here.set_path(next.path());
        here.set_query(next.query());
        if here == *url || next.host_str() != url.host_str() {
            return Err(AskError::Failed(
                "its link to the next page leads elsewhere, or nowhere".to_owned(),
            ));
        }
        Ok(Some(NextPage(here)))
    }
}

/// What a link with `rel=next` points to.
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
