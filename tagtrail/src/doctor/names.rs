//! Findings about registries that may be one registry under two names. Pure.

use serde_json::Value;
use tagtrail_config::File;
use tagtrail_proto::Registry;

use super::report::Finding;

const CHECK: &str = "names";

/// Judges the pairs of registries that share images. `known` is the answer of `/v1/registries`, or
/// `null`.
pub(super) fn shared(file: &File, known: &Value) -> Vec<Finding> {
    let pairs = known["shared"].as_array().into_iter().flatten();
    pairs.filter_map(|pair| judge(file, known, pair)).collect()
}

fn judge(file: &File, known: &Value, pair: &Value) -> Option<Finding> {
    let registry = |key: &str| pair[key].as_str()?.parse::<Registry>().ok();
    let (one, other) = (registry("registry")?, registry("other")?);
    let (images, same) = (pair["images"].as_u64()?, pair["same_digest"].as_u64()?);
    let name = file.names().registry(one.clone());
    if name == file.names().registry(other.clone()) {
        let alias = if name == one { &other } else { &one };
        return Some(Finding::ok(
            CHECK,
            format!(
                "{images} images have a history under {name} and one under its alias {alias}, which ended: {}",
                named(pair, images)
            ),
        ));
    }
    let configured = |registry: &Registry| {
        let mut names = file.registry.iter().map(|access| access.name.get_ref());
        names.any(|name| name == registry)
    };
    // Two registries of which one is a copy have an entry each.
    if configured(&one) && configured(&other) {
        return None;
    }
    let all = images_of(known, &one)?.min(images_of(known, &other)?);
    if same == 0 || same * 2 < all {
        return None;
    }
    let (name, alias) = match configured(&other) {
        true => (other, one),
        false => (one, other),
    };
    let found = format!(
        "{name} and {alias} may be one registry: {same} images have the same digest in both, of {all} that the smaller one has ({})",
        named(pair, images)
    );
    let cure = format!(
        "if so, set aliases = [\"{alias}\"] in the [[registry]] with the name \"{name}\"; if one is a copy of the other, give each a [[registry]]"
    );
    Some(Finding::warning(CHECK, found, cure))
}

/// Returns the number of images of a registry.
fn images_of(known: &Value, registry: &Registry) -> Option<u64> {
    let mut items = known["items"].as_array()?.iter();
    let of = items.find(|item| item["registry"] == registry.as_ref())?;
    of["images"].as_u64()
}

/// Returns the images that the pair names, of so many.
fn named(pair: &Value, images: u64) -> String {
    let first = pair["first"].as_array().into_iter().flatten();
    let mut names: Vec<&str> = first.filter_map(Value::as_str).collect();
    if images > names.len() as u64 {
        names.push("…");
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::Level;
    use super::*;

    fn found(file: &str, same: u64) -> Vec<Finding> {
        let file = File::parse(file, "tagtrail.toml".as_ref()).unwrap();
        let known = json!({
            "items": [{ "registry": "a.example.com", "images": 40 }, { "registry": "b.example.com", "images": 8 }],
            "shared": [{ "registry": "a.example.com", "other": "b.example.com", "images": 7, "same_digest": same,
                "first": ["x:1", "x:2"] }],
        });
        shared(&file, &known)
    }

    fn entry(name: &str) -> String {
        format!("[[registry]]\nname = '{name}'\nurl = 'https://r'\n")
    }

    #[test]
    fn registries_whose_images_coincide_may_be_one() {
        let one = found(&entry("b.example.com"), 4);
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].level, Level::Warning);
        assert_eq!(
            one[0].found,
            "b.example.com and a.example.com may be one registry: 4 images have the same digest in both, of 8 that the smaller one has (x:1, x:2, …)"
        );
        assert!(
            one[0]
                .cure
                .as_ref()
                .unwrap()
                .contains("aliases = [\"a.example.com\"]")
        );
        assert_eq!(found("", 7).len(), 1);
        assert_eq!(found(&entry("b.example.com"), 3), []);
        let both = entry("a.example.com") + &entry("b.example.com");
        assert_eq!(found(&both, 7), []);
        assert_eq!(shared(&File::default(), &Value::Null), []);
    }

    #[test]
    fn images_with_a_history_under_an_alias_too_are_named() {
        let file = entry("b.example.com") + "aliases = ['a.example.com']\n";
        let named = found(&file, 1);
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].level, Level::Ok);
        assert_eq!(
            named[0].found,
            "7 images have a history under b.example.com and one under its alias a.example.com, which ended: x:1, x:2, …"
        );
    }
}
