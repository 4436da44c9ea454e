use proptest::prelude::*;
use tagtrail_proto::Image;

use super::*;

/// The digest of image `n`.
fn digest(n: u8) -> Digest {
    Digest::sha256_of(&[n])
}

fn images(images: &[(&str, &str)]) -> BTreeMap<String, RolloutImage> {
    let image = |(name, image): &(&str, &str)| {
        let image: Image = image.parse().unwrap();
        let digest = digest(1);
        let image = RolloutImage {
            pinned: image.pinned(&digest),
            image,
            revision: 1,
            digest,
            actor: None,
            previous: None,
        };
        ((*name).to_owned(), image)
    };
    images.iter().map(image).collect()
}

const WEB: &str = "registry.example.com/shop/web:1.4.2";
const WORKER: &str = "registry.example.com/shop/worker:1.10";

/// Edits the one file of a repository, with the images `web` and `worker` as far as it wants them.
fn edited_as(edits: &[Edit], wanted: &[&str], path: &str, text: &str) -> Result<String, String> {
    let all = images(&[("web", WEB), ("worker", WORKER)]);
    let images = all
        .into_iter()
        .filter(|(name, _)| wanted.contains(&name.as_str()));
    let images: BTreeMap<String, RolloutImage> = images.collect();
    let markers = images
        .keys()
        .map(|name| (name.clone(), format!("shop:{name}")));
    let markers = markers.collect();
    let names = Names::default();
    let wanted = Wanted {
        edits,
        path: "prod",
        images: &images,
        markers: &markers,
        names: &names,
    };
    let path = format!("prod/{path}");
    let files = Files::from([(path.clone(), text.as_bytes().to_vec())]);
    let mut edited = edit(&wanted, &files)?;
    let Some(changed) = edited.files.remove(&path) else {
        return Ok(text.to_owned());
    };
    assert!(!edited.changes.is_empty());
    // The second time everything is as wanted.
    let files = Files::from([(path, changed.clone())]);
    assert_eq!(edit(&wanted, &files).unwrap().files, Files::new());
    Ok(String::from_utf8(changed).unwrap())
}

fn marked(text: &str) -> Result<String, String> {
    edited_as(&[Edit::Markers], &["web"], "web.yaml", text)
}

fn kustomized(text: &str) -> Result<String, String> {
    edited_as(&[Edit::Kustomize], &["web"], "kustomization.yaml", text)
}

fn placed(at: &str, write: Part, text: &str) -> Result<String, String> {
    let place = Place {
        image: "web".to_owned(),
        file: "values.yaml".to_owned(),
        at: at.to_owned(),
        steps: steps(at)?,
        write,
    };
    edited_as(&[Edit::Yaml(place)], &["web"], "values.yaml", text)
}

fn pinned() -> String {
    format!("registry.example.com/shop/web@{}", digest(1))
}

#[test]
fn a_marked_value_changes_and_nothing_else() {
    let pinned = pinned();
    let (digest, tag) = (digest(1), format!("1.4.2@{}", digest(1)));
    for (before, after) in [
        (
            "  image: x:1 # {\"$imagepolicy\": \"shop:web\"}\n",
            format!("  image: {pinned} # {{\"$imagepolicy\": \"shop:web\"}}\n"),
        ),
        (
            "- image: \"x:1\"   # {\"$imagepolicy\": \"shop:web\"}  ",
            format!("- image: \"{pinned}\"   # {{\"$imagepolicy\": \"shop:web\"}}  "),
        ),
        (
            "  - 'x' #{\"$imagepolicy\":\"shop:web\"}",
            format!("  - '{pinned}' #{{\"$imagepolicy\":\"shop:web\"}}"),
        ),
        (
            "image: # {\"$imagepolicy\": \"shop:web\"}",
            format!("image: {pinned} # {{\"$imagepolicy\": \"shop:web\"}}"),
        ),
        (
            "image: &web x # {\"$imagepolicy\": \"shop:web\"}",
            format!("image: &web {pinned} # {{\"$imagepolicy\": \"shop:web\"}}"),
        ),
        (
            "name: x # {\"$imagepolicy\": \"shop:web:name\"}",
            "name: registry.example.com/shop/web # {\"$imagepolicy\": \"shop:web:name\"}"
                .to_owned(),
        ),
        (
            "digest: \"\" # {\"$imagepolicy\": \"shop:web:digest\"}",
            format!("digest: \"{digest}\" # {{\"$imagepolicy\": \"shop:web:digest\"}}"),
        ),
        // A tag alone does not pin the image; beside its digest it does.
        (
            "tag: 1.0 # {\"$imagepolicy\": \"shop:web:tag\"}",
            format!("tag: {tag} # {{\"$imagepolicy\": \"shop:web:tag\"}}"),
        ),
        (
            "tag: 1.0 # {\"$imagepolicy\": \"shop:web:tag\"}\ndigest: x # {\"$imagepolicy\": \"shop:web:digest\"}",
            format!(
                "tag: 1.4.2 # {{\"$imagepolicy\": \"shop:web:tag\"}}\ndigest: {digest} # {{\"$imagepolicy\": \"shop:web:digest\"}}"
            ),
        ),
    ] {
        assert_eq!(marked(before).unwrap(), after);
        // With Windows line ends, comments and foreign markers around.
        let around = |text: &str| {
            let text = text.replace('\n', "\r\n");
            format!(
                "# Größe\r\na: [1,   2]\r\n{text}\r\nb: x # {{\"$imagepolicy\": \"other:web\"}}\r\n\r\n\t# end"
            )
        };
        assert_eq!(marked(&around(before)).unwrap(), around(&after));
    }
}

#[test]
fn a_marker_that_is_missing_or_marks_no_value_is_named_with_its_cure() {
    let error = "no YAML file below prod has a marker of the image web; end the line of its value with # {\"$imagepolicy\": \"shop:web\"}";
    for text in [
        "image: x:1\n",
        "image: x:1 # {\"$imagepolicy\": \"shop:worker\"}\n",
        "image: x:1 # {\"$imagepolicy\": \"shop:web:hash\"}\n",
        "image: x:1 # {\"$imagepolicy\": shop:web}\n",
        "image: x:1# {\"$imagepolicy\": \"shop:web\"}\n",
        "# {\"$imagepolicy\": \"shop:web\"}\n",
        "{image: x:1} # {\"$imagepolicy\": \"shop:web\"}\n",
        "image: *other # {\"$imagepolicy\": \"shop:web\"}\n",
        "image: two words # {\"$imagepolicy\": \"shop:web\"}\n",
        "image: | # {\"$imagepolicy\": \"shop:web\"}\n  x\n",
    ] {
        assert_eq!(marked(text).unwrap_err(), error, "{text}");
    }
    let both = edited_as(
        &[Edit::Markers],
        &["web", "worker"],
        "web.yml",
        "image: x # {\"$imagepolicy\": \"shop:web\"}\n",
    );
    assert!(both.unwrap_err().contains("the image worker"));
    let marker = "image: x # {\"$imagepolicy\": \"shop:web\"}\n";
    let other = edited_as(&[Edit::Markers], &["web"], "readme.md", marker);
    assert_eq!(other.unwrap_err(), error);
}

#[test]
fn an_entry_of_a_kustomization_gets_the_digest() {
    let digest = digest(1);
    for (before, after) in [
        (
            "images:\n- name: registry.example.com/shop/web\n  digest: sha256:0 # why\n- name: other\n  newTag: v1\n",
            format!(
                "images:\n- name: registry.example.com/shop/web\n  digest: {digest} # why\n- name: other\n  newTag: v1\n"
            ),
        ),
        (
            "images:\n  - name: web # by name\n    newTag: \"1.0\"\nresources: []\n",
            format!(
                "images:\n  - name: web # by name\n    newTag: \"1.4.2\"\n    newName: registry.example.com/shop/web\n    digest: {digest}\nresources: []\n"
            ),
        ),
        (
            "images:\r\n- newName: registry.example.com/shop/web\r\n  name: app\r\n  newTag: v1",
            format!(
                "images:\r\n- newName: registry.example.com/shop/web\r\n  name: app\r\n  newTag: 1.4.2\r\n  digest: {digest}"
            ),
        ),
        (
            "images: [{name: app, newName: registry.example.com/shop/web, newTag: v1}]\n",
            format!(
                "images: [{{name: app, newName: registry.example.com/shop/web, newTag: 1.4.2, digest: {digest}}}]\n"
            ),
        ),
    ] {
        assert_eq!(kustomized(before).unwrap(), after);
    }
    let missing = kustomized("images:\n- name: other\n").unwrap_err();
    assert!(
        missing.contains("no edit has a place for the image web"),
        "{missing}"
    );
    let broken = kustomized("images: [\n").unwrap_err();
    assert!(broken.contains("can't be read as YAML"), "{broken}");
    let file = edited_as(&[Edit::Kustomize], &["web"], "web.yaml", "").unwrap_err();
    assert!(file.contains("no file prod/kustomization.yaml"), "{file}");
}

#[test]
fn a_tag_that_looks_like_a_number_is_quoted() {
    let text = "images:\n- name: worker\n  newName: registry.example.com/shop/worker\n  newTag: v1\n  digest: sha256:0\n";
    let edited = edited_as(&[Edit::Kustomize], &["worker"], "kustomization.yml", text);
    assert!(edited.unwrap().contains("  newTag: \"1.10\"\n"));
}

#[test]
fn a_value_is_found_by_its_place() {
    let (pinned, digest) = (pinned(), digest(1));
    for (at, write, before, after) in [
        (
            "image.digest",
            Part::Digest,
            "image:\n  digest: \"sha256:0\"  # keep\n",
            format!("image:\n  digest: \"{digest}\"  # keep\n"),
        ),
        (
            "image",
            Part::Pinned,
            "# ü\nimage: 'x'\n",
            format!("# ü\nimage: '{pinned}'\n"),
        ),
        (
            "/a~1b/1",
            Part::Pinned,
            "a/b: [x, y]\n",
            format!("a/b: [x, {pinned}]\n"),
        ),
        (
            "list.0.tag",
            Part::TagAndDigest,
            "list:\n- tag:\n  x: 1\n",
            format!("list:\n- tag: 1.4.2@{digest}\n  x: 1\n"),
        ),
        (
            "image",
            Part::Pinned,
            "a: 1\n---\nimage: x\n",
            format!("a: 1\n---\nimage: {pinned}\n"),
        ),
    ] {
        assert_eq!(placed(at, write, before).unwrap(), after);
    }
    for (at, before, expected) in [
        (
            "image.digest",
            "image: {}\n",
            "has no value at image.digest; correct at",
        ),
        (
            "image",
            "image: x\n---\nimage: y\n",
            "has 2 documents with a value at image",
        ),
        ("image", "image: {a: b}\n", "is no text"),
        ("image", "image: |\n  x\n", "is a block of several lines"),
        ("image", "image: \"x\n  y\"\n", "goes over several lines"),
        ("image", "a: &a x\nimage: *a\n", "is no text"),
        ("a..b", "", "is no place"),
    ] {
        let error = placed(at, Part::Pinned, before).unwrap_err();
        assert!(error.contains(expected), "{before}: {error}");
    }
    let missing = edited_as(&[], &["web"], "values.yaml", "").unwrap_err();
    assert!(missing.contains("no edit has a place for the image web"));
}

#[test]
fn a_name_that_the_file_has_for_the_registry_stays() {
    let hub = images(&[("web", "docker.io/library/nginx:1.27")]);
    let markers = BTreeMap::from([("web".to_owned(), "shop:web".to_owned())]);
    let names = Names::default();
    let wanted = Wanted {
        edits: &[Edit::Markers],
        path: "",
        images: &hub,
        markers: &markers,
        names: &names,
    };
    let text = b"image: nginx:1.26 # {\"$imagepolicy\": \"shop:web\"}\n".to_vec();
    let edited = edit(&wanted, &Files::from([("a.yaml".to_owned(), text)])).unwrap();
    let after = format!(
        "image: nginx@{} # {{\"$imagepolicy\": \"shop:web\"}}\n",
        digest(1)
    );
    assert_eq!(edited.files["a.yaml"], after.as_bytes());
    assert_eq!(
        edited.changes,
        [format!("a.yaml: line 1: nginx:1.26 → nginx@{}", digest(1))]
    );
    assert_eq!(edited.found[0].digest, None);
}

proptest! {
    /// Whatever a file holds, an edit ends, and changes no line without a marker.
    #[test]
    fn lines_without_a_marker_never_change(text in "([a-z:#\"'{} \\t|&*-]{0,20}(# \\{\"\\$imagepolicy\": \"shop:web\"\\})?\r?\n){0,8}") {
        if let Ok(after) = marked(&text) {
            prop_assert_eq!(text.lines().count(), after.lines().count());
            for (line, changed) in text.lines().zip(after.lines()) {
                if line != changed {
                    prop_assert!(line.contains("$imagepolicy"));
                }
            }
        }
        let _ = kustomized(&text);
        let _ = placed("a.b", Part::Pinned, &text);
    }
}
