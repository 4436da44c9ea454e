//! `/i/{…}`: the images. A tag has no `/` and a repository no `:`, so one path names a tag, a
//! digest of a repository, a repository, or a folder of repositories.

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use tagtrail_config::Names;
use tagtrail_history::names::is_known;
use tagtrail_proto::{Digest, Image};

use crate::http::error::Error;
use crate::pages::Page;
use crate::pages::part::{digest, image};
use crate::pages::reader::Reader;
use crate::pages::{browse, repository, tag};
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_images",
    paths: &["/i/{*path}"],
    open: false,
    stored: true,
    serve: || get(show),
};

/// The meaning of a path after `/i/`.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A tag.
    Tag(Image),
    /// A digest, which has a page of its own.
    Digest(Digest),
    /// A repository, or the beginning of the names of several.
    Prefix(String),
}

impl Place {
    fn read(path: &str, names: &Names) -> Result<Place, Error> {
        let path = path.trim_end_matches('/');
        if let Some((_, digest)) = path.split_once('@') {
            let digest = digest.parse();
            return digest.map(Place::Digest).map_err(|_| Error::DigestWhole);
        }
        let last = path.rsplit_once('/').map_or("", |(_, last)| last);
        match last.contains(':') {
            true => names.image(path).map(Place::Tag).map_err(Error::Image),
            false => Ok(Place::Prefix(path.to_owned())),
        }
    }
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    Path(path): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    let place = Place::read(&path, &shared.names.get())?;
    match place {
        Place::Digest(found) => Ok(Redirect::to(&digest::address(&found)).into_response()),
        // Under an alias, or with capitals that the registry folds.
        Place::Tag(found) if found.to_string() != path => {
            let query = uri.query().map(|query| format!("?{query}"));
            let address = image::address(&found) + &query.unwrap_or_default();
            Ok(Redirect::to(&address).into_response())
        }
        Place::Tag(found) => tag::show(&reader, &shared, found, &uri).await,
        Place::Prefix(prefix) => {
            let image = shared.names.get().image(&prefix);
            // A slash at the end means the folder.
            if let Some(image) = image
                .ok()
                .filter(|_| prefix.contains('/') && !path.ends_with('/'))
            {
                let (registry, repository) = (&image.registry, &image.repository);
                let known = shared
                    .database
                    .ask(async |db| is_known(db, registry, repository).await);
                if known.await? {
                    return repository::show(&reader, &shared, registry, repository, &uri).await;
                }
            }
            browse::show(&reader, &shared, &prefix, &uri).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_tag_a_digest_or_a_prefix() {
        let read = |path| Place::read(path, &Names::default()).unwrap();
        let image = |text: &str| Place::Tag(text.parse().unwrap());
        for tag in ["r.example.com/shop/web:latest", "127.0.0.1:5000/a:b"] {
            assert_eq!(read(tag), image(tag));
        }
        for prefix in [
            "r.example.com",
            "127.0.0.1:5000",
            "127.0.0.1:5000/a",
            "r.example.com/shop/",
        ] {
            let expected = prefix.trim_end_matches('/').to_owned();
            assert_eq!(read(prefix), Place::Prefix(expected));
        }
        let digest = Digest::sha256_of(b"x");
        let pinned = format!("r.example.com/a@{digest}");
        assert_eq!(read(&pinned), Place::Digest(digest));
        assert!(Place::read("r.example.com/a:.b", &Names::default()).is_err());
        assert!(Place::read("r.example.com/a@sha256:0", &Names::default()).is_err());
    }
}
