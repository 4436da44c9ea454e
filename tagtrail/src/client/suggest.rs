//! Names like an unknown name: "did you mean …?"

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, items};
use super::tags::repository;

/// Most names that are compared.
const COMPARED: usize = 5000;
/// Most names that are suggested.
const SUGGESTED: usize = 3;
/// Least likeness of a suggestion, from 0 to 1: two of six letters may differ.
const LEAST: f64 = 0.66;

/// Adds the names like `image` to the failure of a question about it, if the image is unknown.
pub(super) async fn image<T>(
    api: &Api,
    image: &str,
    answer: Result<T, Failure>,
) -> Result<T, Failure> {
    let failure = match answer {
        Err(failure)
            if [
                "tag_unknown",
                "repository_unknown",
                "image_invalid",
                "repository_invalid",
            ]
            .contains(&failure.problem.as_str()) =>
        {
            failure
        }
        answer => return answer,
    };
    let like = match tags_like(api, image).await {
        Some(tags) if !tags.is_empty() => tags,
        // The repository is known, and none of its tags is similar.
        Some(_) => {
            return Err(failure.and(&format!(
                "`tagtrail tags {}` lists its tags",
                repository(image)
            )));
        }
        None => repositories_like(api, image).await,
    };
    // The tag exists, but did not at the time of the question.
    if like
        .iter()
        .any(|name| name == image || *name == format!("{image}:latest"))
    {
        return Err(failure.and(&format!(
            "`tagtrail history {image}` shows its first revision"
        )));
    }
    let cure = if failure.problem.ends_with("unknown") {
        "`tagtrail images` lists the images"
    } else {
        ""
    };
    Err(with_names(failure, &like, cure))
}

/// Adds the names like `trigger` to the failure of a question about it, if the trigger is unknown.
pub(super) async fn trigger<T>(
    api: &Api,
    trigger: &str,
    answer: Result<T, Failure>,
) -> Result<T, Failure> {
    let failure = match answer {
        Err(failure) if failure.problem == "trigger_unknown" => failure,
        answer => return answer,
    };
    let list = api.get(&["triggers"], &[]).await.unwrap_or_default();
    let names = items(&list).iter().map(|item| field(item, "name"));
    let like = closest(names, |name| {
        strsim::normalized_damerau_levenshtein(name, trigger)
    });
    Err(with_names(failure, &like, ""))
}

fn with_names(failure: Failure, names: &[String], cure: &str) -> Failure {
    match names {
        [] if cure.is_empty() => failure,
        [] => failure.and(cure),
        names => failure.and(&format!("did you mean {}?", names.join(" or "))),
    }
}

/// Returns the images of the repository whose tags are like the image's. `None`: the repository is
/// unknown.
async fn tags_like(api: &Api, image: &str) -> Option<Vec<String>> {
    let name = repository(image);
    let query = [("repository", Some(name.to_owned()))];
    let list = api.list(&["tags"], &query, COMPARED, None).await.ok()?;
    let tag = image
        .strip_prefix(name)?
        .strip_prefix(':')
        .unwrap_or("latest");
    let images = items(&list).iter().map(|item| field(item, "image"));
    Some(closest(images, |known| {
        let known = known.rsplit(':').next().unwrap_or_default();
        strsim::normalized_damerau_levenshtein(known, tag)
    }))
}

async fn repositories_like(api: &Api, image: &str) -> Vec<String> {
    let list: Value = match api.list(&["repositories"], &[], COMPARED, None).await {
        Ok(list) => list,
        // The failure of the question itself is reported.
        Err(_) => return Vec::new(),
    };
    let names = items(&list)
        .iter()
        .map(|item| format!("{}/{}", field(item, "registry"), field(item, "repository")));
    let wanted = repository(image);
    let mut found = closest(names, |known| likeness(known, wanted));
    for name in &mut found {
        *name += image
            .strip_prefix(wanted)
            .filter(|tag| tag.starts_with(':'))
            .unwrap_or_default();
    }
    found
}

/// Returns how like two repositories are, from 0 to 1. The path counts more than the registry: a
/// registry may be missing, or written as another name of the same host.
fn likeness(known: &str, wanted: &str) -> f64 {
    let like = strsim::normalized_damerau_levenshtein;
    let (registry, path) = known.split_once('/').unwrap_or_default();
    let (wanted_registry, wanted_path) = wanted.split_once('/').unwrap_or_default();
    let both = 0.7 * like(path, wanted_path) + 0.3 * like(registry, wanted_registry);
    both.max(like(path, wanted))
}

/// Returns the names that are most like the wanted one, the most like first.
fn closest(names: impl Iterator<Item = String>, likeness: impl Fn(&str) -> f64) -> Vec<String> {
    let mut like: Vec<(f64, String)> = names
        .map(|name| (likeness(&name), name))
        .filter(|(likeness, _)| *likeness >= LEAST)
        .collect();
    like.sort_by(|(one, name), (other, of_other)| {
        other.total_cmp(one).then_with(|| name.cmp(of_other))
    });
    like.truncate(SUGGESTED);
    like.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_repositories_are_suggested() {
        let known = [
            "127.0.0.1:5000/shop/web",
            "127.0.0.1:5000/shop/worker",
            "mirror.example.com/shop/web",
            "registry.example.com/other/database",
        ];
        let like = |wanted: &str| {
            closest(known.iter().map(ToString::to_string), |known| {
                likeness(known, wanted)
            })
        };
        for (wanted, expected) in [
            ("shop/web", known[0]),
            ("127.0.0.1:5000/shop/wb", known[0]),
            ("localhost:5000/shop/web", known[0]),
            ("mirror.exampel.com/shop/web", known[2]),
            ("registry.example.com/other/databse", known[3]),
        ] {
            assert_eq!(
                like(wanted).first().map(String::as_str),
                Some(expected),
                "{wanted}"
            );
        }
        assert_eq!(like("registry.example.com/x/y"), Vec::<String>::new());
        assert!(like("shop/web").len() <= SUGGESTED);
    }
}
