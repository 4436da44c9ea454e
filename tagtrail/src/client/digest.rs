//! `tagtrail digest`.

use super::Answer;
use super::api::{Api, Failure};
use super::print::{field, items, more, table};

/// The question.
#[derive(Debug, clap::Args)]
pub(crate) struct Digest {
    /// The digest, whole: sha256:… or sha512:….
    digest: String,
    /// Most images to show.
    #[arg(long, default_value_t = 50, value_parser = super::rollouts::limit)]
    limit: usize,
}

impl Digest {
    pub(crate) async fn ask(self, api: &Api) -> Result<Answer, Failure> {
        let mut json = api
            .list(&["digests", &self.digest], &[], self.limit)
            .await?;
        if items(&json).is_empty() {
            return Err(Failure::not_found(format!(
                "no image ever had {}",
                self.digest
            )));
        }
        let rows = items(&json)
            .iter()
            .map(|item| ["image", "revision", "from", "until"].map(|name| field(item, name)));
        let text = table(["IMAGE", "REVISION", "FROM", "UNTIL"], rows) + more(&json);
        if let Some(answer) = json.as_object_mut() {
            answer.insert("digest".to_owned(), self.digest.into());
        }
        Ok(Answer { json, text })
    }
}
