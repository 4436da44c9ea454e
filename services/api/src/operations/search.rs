//! `GET /v1/search?q=`: images, digests, commits, rollouts, triggers and repositories by a text as
//! people have it at hand.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;
use tagtrail_config::{Names, Role};
use tagtrail_history::prefix::{self, DigestPrefix};
use tagtrail_history::search::{self, BuiltFrom, FoundRepository};
use tagtrail_history::tag_id;
use tagtrail_proto::{Digest, Image, Name, Repository, Tag};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, optional, text};
use crate::shared::Shared;
use crate::store::found::{self, FoundRollout};

/// Most answers of a kind.
pub(crate) const MOST: i64 = 25;
/// Most characters of a question.
const LONGEST: usize = 600;

pub(crate) const QUESTION: Parameter = Parameter {
    required: true,
    ..optional(
        "q",
        "An image, `docker pull …`, a digest or commit or their first six or more digits, `shop#418`, or a part of the name of a repository, trigger or tag.",
        "9f2c41d",
        text,
    )
};

pub(crate) const SEARCH: Operation = Operation {
    id: "search",
    method: Method::Get,
    path: "/v1/search",
    summary: "Images, digests, commits, rollouts, triggers, repositories and tags by a text.",
    role: Role::Read,
    in_path: &[],
    query: &[QUESTION],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Found>),
    problems: &[(400, "question_invalid")],
    serve: |method| on(method, search),
};

/// The answers to a question, at most 25 of each kind.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Found {
    /// The question, without the command around it.
    pub(crate) question: String,
    /// Images of this name that have a history.
    pub(crate) images: Vec<Image>,
    /// Digests that begin with the text, or the whole digest.
    pub(crate) digests: Vec<Digest>,
    /// Digests whose commit begins with the text.
    pub(crate) commits: Vec<BuiltFrom>,
    /// The rollout of this name and number.
    pub(crate) rollouts: Vec<FoundRollout>,
    /// Triggers whose name contains the text.
    pub(crate) triggers: Vec<String>,
    /// Repositories whose name contains the text.
    pub(crate) repositories: Vec<FoundRepository>,
    /// Images whose tag contains the text, of 10,000 tags that move and of the 10,000 newest tags.
    pub(crate) tags: Vec<Image>,
}

/// The meanings that a question can have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Meanings {
    question: String,
    /// An image with its registry.
    image: Option<Image>,
    /// An image without a registry.
    anywhere: Option<(Repository, Tag)>,
    digest: Option<DigestPrefix>,
    /// First digits of a commit.
    commit: Option<String>,
    rollout: Option<(String, i64)>,
    /// A part of a name.
    part: Option<String>,
}

impl Meanings {
    fn of(question: &str, names: &Names) -> Meanings {
        let text = without_command(question);
        let mut meanings = Meanings {
            question: text.to_owned(),
            ..Meanings::default()
        };
        if let Some((_, digest)) = text.rsplit_once('@') {
            meanings.digest = digest.parse().ok();
            return meanings;
        }
        if let Some((trigger, number)) = text.split_once('#') {
            let number = number.trim().parse().ok().filter(|number| *number > 0);
            let trigger = trigger.trim();
            let is_name = trigger.parse::<Name>().is_ok();
            meanings.rollout = number
                .filter(|_| is_name)
                .map(|number| (trigger.to_owned(), number));
            return meanings;
        }
        let lower = text.to_ascii_lowercase();
        meanings.digest = lower.parse().ok();
        let hex = lower.bytes().all(|byte| byte.is_ascii_hexdigit());
        meanings.commit = (hex && (6..=64).contains(&lower.len())).then(|| lower.clone());
        let (first, last) = (text.split('/').next(), text.rsplit('/').next());
        let first = first.filter(|_| text.contains('/')).unwrap_or_default();
        let with_registry = first == "localhost" || first.contains(['.', ':']);
        if last.is_some_and(|last| last.contains(':')) && meanings.digest.is_none() {
            if with_registry {
                meanings.image = names.image(text).ok();
            } else if let Some((repository, tag)) = text.rsplit_once(':') {
                let parsed = repository.parse().ok().zip(tag.parse().ok());
                meanings.anywhere = parsed;
            }
        } else if !text.is_empty() {
            meanings.part = Some(text.trim_matches('/').to_owned());
        }
        meanings
    }
}

/// Returns the image or digest of a command such as `docker pull r.example.com/a:b`.
fn without_command(question: &str) -> &str {
    const CLIENTS: [&str; 8] = [
        "docker", "podman", "nerdctl", "crane", "skopeo", "oras", "regctl", "tagtrail",
    ];
    let mut words = question.split_whitespace();
    let is_command = words.next().is_some_and(|first| CLIENTS.contains(&first));
    let text = match words.next_back() {
        Some(last) if is_command => last,
        _ => question.trim(),
    };
    ["docker://", "oci://", "https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text)
}

/// Answers a question, on one connection.
pub(crate) async fn find(
    db: &mut PgConnection,
    names: &Names,
    question: &str,
) -> Result<Found, sqlx::Error> {
    let meanings = Meanings::of(question, names);
    let mut found = Found {
        question: meanings.question,
        ..Found::default()
    };
    if let Some(image) = meanings.image {
        let known = tag_id(db, &image).await?.is_some();
        found.images.extend(Some(image).filter(|_| known));
    }
    if let Some((repository, tag)) = meanings.anywhere {
        found.images = search::images(db, &repository, &tag, MOST).await?;
    }
    if let Some(digest) = meanings.digest {
        found.digests = prefix::digests(db, &digest, MOST).await?;
    }
    if let Some(commit) = meanings.commit {
        found.commits = search::commits(db, &commit, MOST).await?;
    }
    if let Some((trigger, number)) = meanings.rollout {
        found
            .rollouts
            .extend(found::rollout(db, &trigger, number).await?);
    }
    if let Some(part) = meanings.part {
        found.repositories = search::repositories(db, &part, MOST).await?;
        found.triggers = found::triggers(db, &part, MOST).await?;
        // A tag has no slash.
        if part.parse::<Tag>().is_ok() {
            found.tags = search::tags(db, &part, MOST).await?;
        }
    }
    Ok(found)
}

/// Reads the question. `None`: it is empty.
pub(crate) fn question(parameters: &Parameters) -> Result<Option<&str>, Error> {
    match parameters.written(QUESTION.name) {
        Some(text) if text.chars().count() > LONGEST => Err(Error::Question),
        text => Ok(text),
    }
}

async fn search(State(shared): State<Shared>, uri: Uri) -> Result<Json<Found>, Error> {
    let parameters = Parameters::read(&uri, SEARCH.query)?;
    let question = question(&parameters)?.ok_or(Error::Question)?;
    let names = shared.names.get();
    let found = shared
        .database
        .ask_large(async |db| find(db, &names, question).await)
        .await?;
    Ok(Json(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(question: &str) -> Meanings {
        Meanings::of(question, &Names::default())
    }

    #[test]
    fn a_question_is_read_as_people_have_it_at_hand() {
        let image: Image = "r.example.com/shop/web:1.2".parse().unwrap();
        for text in [
            "r.example.com/shop/web:1.2",
            "docker pull r.example.com/shop/web:1.2",
            " docker://r.example.com/shop/web:1.2 ",
        ] {
            assert_eq!(of(text).image.as_ref(), Some(&image), "{text}");
        }
        let anywhere = of("shop/web:1.2").anywhere.unwrap();
        assert_eq!(
            (anywhere.0.as_ref(), anywhere.1.as_ref()),
            ("shop/web", "1.2")
        );
        let digest = Digest::sha256_of(b"x");
        let whole = Some(DigestPrefix::Whole(digest.clone()));
        assert_eq!(of(&digest.to_string()).digest, whole);
        assert_eq!(
            of(&format!("crane manifest r.example.com/a@{digest}")).digest,
            whole
        );
        let hex = of("9F2C41D");
        assert_eq!(hex.commit.as_deref(), Some("9f2c41d"));
        assert!(matches!(hex.digest, Some(DigestPrefix::Prefix { .. })));
        assert_eq!(of("shop#418").rollout, Some(("shop".to_owned(), 418)));
        assert_eq!(
            of("shop#x"),
            Meanings {
                question: "shop#x".to_owned(),
                ..Meanings::default()
            }
        );
        let part = of("r.example.com/shop");
        assert_eq!(
            (part.part.as_deref(), part.image),
            (Some("r.example.com/shop"), None)
        );
        assert_eq!(of("web").part.as_deref(), Some("web"));
    }
}
