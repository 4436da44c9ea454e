//! Lists of images in custom resources: `spec.images` of a Kustomization of Flux, and
//! `spec.source.kustomize.images` of an Application of Argo CD.

use serde_json::Value;

use crate::images::{Place, Reference};

/// An entry of a list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The place to write: the digest of Flux, or the whole text of Argo CD.
    pub place: Place,
    /// The image that the entry stands for.
    pub reference: Reference,
    /// Whether the place holds a digest alone.
    pub digest: bool,
}

/// Returns the entries of the list at this place: `{name, newName, digest}` as Flux writes them, or
/// texts `name=newName:tag` as Argo CD does. `None`: there is no list. Entries that name no image,
/// and those of Flux without a text `digest`, are left out.
#[must_use]
pub fn entries(object: &Value, at: &str) -> Option<Vec<Entry>> {
    let list = object.pointer(at)?.as_array()?;
    let entries = list.iter().enumerate().filter_map(|(index, entry)| {
        let at = format!("{at}/{index}");
        if let Some(text) = entry.as_str() {
            return Some(Entry {
                reference: written_reference(text)?,
                place: Place {
                    name: at.clone(),
                    at,
                    beside: None,
                    image: text.to_owned(),
                },
                digest: false,
            });
        }
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let name = text("name")?;
        Some(Entry {
            reference: Reference::parse(text("newName").unwrap_or(name))?,
            place: Place {
                at: format!("{at}/digest"),
                beside: Some((format!("{at}/name"), name.to_owned())),
                name: name.to_owned(),
                image: text("digest")?.to_owned(),
            },
            digest: true,
        })
    });
    Some(entries.collect())
}

/// Reads the reference of a text that may begin with the name that it replaces: `name=reference`.
#[must_use]
pub fn written_reference(text: &str) -> Option<Reference> {
    Reference::parse(text.split_once('=').map_or(text, |(_, after)| after))
}

/// Returns the places at or below a pointer: a text, or the entries of a list.
pub(crate) fn places_at(object: &Value, at: &str) -> Vec<Place> {
    match object.pointer(at).and_then(Value::as_str) {
        Some(image) => vec![Place {
            at: at.to_owned(),
            beside: None,
            name: at.to_owned(),
            image: image.to_owned(),
        }],
        None => {
            let entries = entries(object, at).unwrap_or_default().into_iter();
            entries.map(|entry| entry.place).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_of_both_tools_are_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let object = json!({"spec": {
            "images": [
                {"name": "web", "newName": "registry.example.com/shop/web", "digest": digest},
                {"name": "registry.example.com/shop/worker", "newTag": "1"},
                {"newTag": "1"},
            ],
            "source": {"kustomize": {"images": ["web=registry.example.com/shop/web:v1", "nginx:1.27", "!!"]}},
        }});
        let flux = entries(&object, "/spec/images").unwrap();
        assert_eq!(flux.len(), 1);
        assert_eq!(flux[0].place.at, "/spec/images/0/digest");
        assert_eq!(flux[0].reference.repository.as_ref(), "shop/web");
        let argo = entries(&object, "/spec/source/kustomize/images").unwrap();
        let found: Vec<(&str, &str)> = argo
            .iter()
            .map(|one| (one.place.at.as_str(), one.reference.repository.as_ref()))
            .collect();
        assert_eq!(
            found,
            [
                ("/spec/source/kustomize/images/0", "shop/web"),
                ("/spec/source/kustomize/images/1", "library/nginx"),
            ]
        );
        assert_eq!(entries(&object, "/spec"), None);
    }
}
