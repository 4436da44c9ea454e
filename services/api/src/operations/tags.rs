//! `GET /v1/tags?repository=&q=&class=&sort=&at=&window=&deleted=&signatures=&limit=&cursor=`: the
//! tags of a repository, each with its digest now or at a time.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use serde_json::json;
use tagtrail_config::Role;
use tagtrail_history::tags::{self as store, Class, KnownTag, Sort, TagsQuery};
use tagtrail_history::{lanes, names};
use time::{Duration, OffsetDateTime};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::paging::{CURSOR, Items, LIMIT, List, Page};
use crate::http::parameters::{AT, PART, Parameter, Parameters, SIGNATURES, optional, text};
use crate::shared::Shared;

const REPOSITORY: Parameter = Parameter {
    required: true,
    ..optional(
        "repository",
        "The repository, with its registry and without a tag.",
        "registry.example.com/shop/web",
        text,
    )
};
const DELETED: Parameter = optional(
    "deleted",
    "`true`: also tags that were deleted.",
    "true",
    || json!({ "type": "boolean", "default": false }),
);
pub(crate) const CLASS: Parameter = optional(
    "class",
    "Only tags with two revisions or more (`moving`), that look like a version (`release`), with one revision (`once`), or that were deleted (`deleted`). Without it, or with `all`, all tags.",
    "moving",
    || json!({ "type": "string", "enum": Class::EVERY.map(Class::as_str) }),
);
pub(crate) const SORT: Parameter = optional(
    "sort",
    "The order: by `name`, the `newest` revision first, or the most `changes` first.",
    "newest",
    || json!({ "type": "string", "enum": Sort::EVERY.map(Sort::as_str), "default": "name" }),
);
pub(crate) const WINDOW: Parameter = optional(
    "window",
    "Also the `lane` of each tag: its digests over this time, which ends now or with `at`.",
    "30d",
    || json!({ "type": "string", "enum": Span::EVERY.map(Span::as_str) }),
);

/// The time that lanes cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Span {
    pub(crate) const EVERY: [Span; 5] = [
        Span::Day,
        Span::Week,
        Span::Month,
        Span::Quarter,
        Span::Year,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Span::Day => "24h",
            Span::Week => "7d",
            Span::Month => "30d",
            Span::Quarter => "90d",
            Span::Year => "1y",
        }
    }

    fn days(self) -> i64 {
        match self {
            Span::Day => 1,
            Span::Week => 7,
            Span::Month => 30,
            Span::Quarter => 90,
            Span::Year => 365,
        }
    }

    /// Returns the begin of the time that ends with `until`.
    pub(crate) fn before(self, until: OffsetDateTime) -> OffsetDateTime {
        let from = until.checked_sub(Duration::days(self.days()));
        from.unwrap_or(until)
    }
}

pub(crate) const TAGS: Operation = Operation {
    id: "tags",
    method: Method::Get,
    path: "/v1/tags",
    summary: "The tags of a repository, each with its revision in force now or at a time.",
    role: Role::Read,
    in_path: &[],
    query: &[
        REPOSITORY, PART, CLASS, SORT, AT, WINDOW, DELETED, SIGNATURES, LIMIT, CURSOR,
    ],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Items<KnownTag>>),
    problems: &[
        (400, "repository_invalid"),
        (400, "choice_invalid"),
        (400, "time_invalid"),
        (400, "flag_invalid"),
        (400, "limit_invalid"),
        (400, "cursor_invalid"),
        (404, "repository_unknown"),
    ],
    serve: |method| on(method, tags),
};

/// Returns the list in this order: each has cursors of its own.
pub(crate) fn list(sort: Sort) -> List<2> {
    let (name, time) = match sort {
        Sort::Name => ("tags", None),
        Sort::Newest => ("tags_newest", Some(0)),
        Sort::Changes => ("tags_changes", None),
    };
    List { name, time }
}

async fn tags(
    State(Shared {
        database, names, ..
    }): State<Shared>,
    uri: Uri,
) -> Result<Json<Items<KnownTag>>, Error> {
    let parameters = Parameters::read(&uri, TAGS.query)?;
    let text = parameters.text(REPOSITORY.name).unwrap_or_default();
    // Only the registry may have a colon, before its port.
    let has_tag = text
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'));
    let image = names.get().image(text).ok().filter(|_| !has_tag);
    let image = image.ok_or(Error::Repository)?;
    let query = TagsQuery {
        at: parameters.time(AT.name)?,
        class: parameters
            .choice(CLASS.name, &Class::EVERY, Class::as_str)?
            .unwrap_or(Class::All),
        part: parameters.written(PART.name),
        sort: parameters
            .choice(SORT.name, &Sort::EVERY, Sort::as_str)?
            .unwrap_or(Sort::Name),
        deleted: parameters.flag(DELETED.name)?,
        signatures: parameters.flag(SIGNATURES.name)?,
    };
    let window = parameters.choice(WINDOW.name, &Span::EVERY, Span::as_str)?;
    let page = Page::read(list(query.sort), &parameters)?;
    let (registry, repository) = (&image.registry, &image.repository);
    let (found, known) = database
        .ask_large(async |db| {
            let found =
                store::tags(db, registry, repository, query, page.after, page.fetch()).await?;
            let known = !found.is_empty() || names::is_known(db, registry, repository).await?;
            let mut items = page.cut(found);
            if let Some(window) = window {
                let until = query.at.unwrap_or_else(OffsetDateTime::now_utc);
                lanes::add(db, &mut items.items, window.before(until), until).await?;
            }
            Ok((items, known))
        })
        .await?;
    match known {
        true => Ok(Json(found)),
        false => Err(Error::RepositoryUnknown(format!("{registry}/{repository}"))),
    }
}
