//! `…:{tag}?rev=14&rev=17`: two selected revisions, which lead to the comparison of their digests.

use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use tagtrail_history::instant::Instant;
use tagtrail_history::resolve::{self, Resolution};
use tagtrail_proto::{Digest, Image};

use crate::http::error::Error;
use crate::shared::Shared;

/// Returns the numbers of the selected revisions, in order. `None`: the address selects none.
pub(crate) fn selected(uri: &Uri) -> Result<Option<Vec<u64>>, Error> {
    let query = uri.query().unwrap_or_default();
    let given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "rev");
    let numbers: Result<Vec<u64>, Error> = given
        .map(|(_, text)| match text.parse() {
            Ok(number @ 1..) if i64::try_from(number).is_ok() => Ok(number),
            _ => Err(Error::Revision),
        })
        .collect();
    let mut numbers = numbers?;
    numbers.sort_unstable();
    match numbers.len() {
        0 => Ok(None),
        1 | 2 => Ok(Some(numbers)),
        more => Err(Error::Selected(more)),
    }
}

/// Leads to the comparison of the selected revisions; of one, with the head, and of the head, with
/// the revision before.
pub(crate) async fn compare(
    shared: &Shared,
    image: &Image,
    numbers: &[u64],
) -> Result<Response, Error> {
    let found = shared
        .database
        .ask_page(async |db| {
            let mut found = Vec::new();
            for number in numbers {
                found.push(resolve::numbered(db, image, *number).await?);
            }
            if let [number] = numbers {
                let head = resolve::heads(db, &[image]).await?;
                let is_head = matches!(head.first(), Some(Resolution::InForce(head)) if head.revision == *number);
                match number.checked_sub(1).filter(|before| is_head && *before > 0) {
                    Some(before) => {
                        found.insert(0, resolve::numbered(db, image, before).await?);
                    }
                    None => found.extend(head),
                }
            }
            Ok(found)
        })
        .await?;
    let mut digests = Vec::new();
    for (place, resolution) in found.into_iter().enumerate() {
        digests.push(digest(image, resolution, numbers.get(place).copied())?);
    }
    let [before, after] = digests.as_slice() else {
        return Err(Error::Selected(digests.len()));
    };
    let address = format!("/compare/{before}..{after}?image={image}");
    Ok(Redirect::to(&address).into_response())
}

fn digest(image: &Image, resolution: Resolution, number: Option<u64>) -> Result<Digest, Error> {
    let image = image.clone();
    match (resolution, number) {
        (Resolution::InForce(found), _) => found.digest.ok_or(Error::TagDeleted {
            image,
            revision: found.revision,
            at: Instant(found.occurred_at),
        }),
        (Resolution::NotYet, Some(revision)) => Err(Error::RevisionUnknown { image, revision }),
        _ => Err(Error::TagUnknown(image)),
    }
}
