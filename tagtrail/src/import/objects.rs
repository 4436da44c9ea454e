//! The objects of manifests: YAML or JSON, bounded.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tagtrail_proto::clean_text;

/// Most bytes of all files together.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Most levels of a document. Kubernetes objects have about 20.
const MOST_LEVELS: usize = 64;
/// Most aliases. Manifests have few; each may stand for a large part of the document.
const MOST_ALIASES: usize = 1000;
/// Most nodes, with those that aliases repeat.
const MOST_NODES: usize = 2_000_000;
/// Most levels of lists within lists.
const MOST_LISTS: usize = 4;
/// Most characters of a name in a message.
const LONGEST: usize = 120;

/// An object of Kubernetes.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: String,
    /// Empty if the manifest leaves it to `kubectl`.
    pub(super) namespace: String,
    pub(super) name: String,
    value: Value,
}

impl Object {
    /// The name for people: `ImagePolicy flux-system/podinfo`.
    pub(super) fn label(&self) -> String {
        let label = match self.namespace.as_str() {
            "" => format!("{} {}", self.kind, self.name),
            namespace => format!("{} {namespace}/{}", self.kind, self.name),
        };
        clean_text(&label, LONGEST)
    }

    /// Returns a part, by a JSON pointer such as `/spec/image`.
    pub(super) fn get(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Returns a text, by a JSON pointer.
    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.get(pointer)?.as_str()
    }

    /// Returns the items of a list, by a JSON pointer; none if there is no list.
    pub(super) fn list(&self, pointer: &str) -> &[Value] {
        list(self.get(pointer))
    }

    /// Returns an annotation, or else the label of this name.
    pub(super) fn annotation(&self, name: &str) -> Option<String> {
        ["/metadata/annotations", "/metadata/labels"]
            .iter()
            .find_map(|pointer| word(self.get(pointer)?.get(name)?))
    }

    /// Returns the names of all annotations and labels that begin with a prefix, without it.
    pub(super) fn annotations(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = ["/metadata/annotations", "/metadata/labels"]
            .iter()
            .filter_map(|pointer| self.get(pointer)?.as_object())
            .flat_map(|all| all.keys())
            .filter_map(|name| name.strip_prefix(prefix).map(str::to_owned))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Returns the items of a list; none if there is no list.
pub(super) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns a text. Files that were never applied may have a number or a boolean without quotes.
pub(super) fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns the texts of a list.
pub(super) fn words(value: Option<&Value>) -> Vec<String> {
    list(value).iter().filter_map(word).collect()
}

/// Reads the objects of files; `-` is standard input.
pub(super) fn read(files: &[std::path::PathBuf]) -> anyhow::Result<Vec<Object>> {
    let (mut objects, mut room) = (Vec::new(), MOST_BYTES);
    for file in files {
        let text = read_text(file, &mut room)?;
        let found = parse(&text).with_context(|| format!("can't read {}", file.display()))?;
        objects.extend(found);
    }
    Ok(objects)
}

/// Reads a file, or standard input, as long as there is room.
pub(super) fn read_text(file: &Path, room: &mut u64) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let limit = *room + 1;
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(limit).read_to_string(&mut text),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(limit).read_to_string(&mut text))
        }
    };
    let read = read.with_context(|| format!("can't read {}", file.display()))?;
    let Some(left) = room.checked_sub(u64::try_from(read).unwrap_or(u64::MAX)) else {
        bail!(
            "the files have more than {} MiB: import them one after the other",
            MOST_BYTES >> 20
        );
    };
    *room = left;
    Ok(text)
}

/// Reads the objects of a text of YAML or JSON documents. Lists of `kubectl get` are their items.
pub(super) fn parse(text: &str) -> anyhow::Result<Vec<Object>> {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = MOST_LEVELS;
    budget.max_aliases = MOST_ALIASES;
    budget.max_nodes = MOST_NODES;
    let options = serde_saphyr::options! {
        budget: Some(budget),
        // As Kubernetes reads them: a name such as `n` or `on` is no boolean.
        strict_booleans: true,
        // A snippet could show a secret.
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
    let mut objects = Vec::new();
    for document in documents {
        add(document, &mut objects, 0);
    }
    Ok(objects)
}

fn add(mut value: Value, objects: &mut Vec<Object>, depth: usize) {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("List") && depth < MOST_LISTS {
        if let Value::Array(items) = value["items"].take() {
            items
                .into_iter()
                .for_each(|item| add(item, objects, depth + 1));
        }
        return;
    }
    let text = |pointer: &str| {
        let text = value.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    if !kind.is_empty() && !name.is_empty() {
        objects.push(Object {
            kind,
            namespace,
            name,
            value,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_read() {
        let text = "kind: A\nmetadata: {name: one, namespace: n}\n---\n---\nkind: List\nitems:\n\
                    - kind: BList\n  items: [{kind: B, metadata: {name: two}}]\n- kind: C\n";
        let found: Vec<String> = parse(text).unwrap().iter().map(Object::label).collect();
        assert_eq!(found, ["A n/one", "B two"]);
        let json = r#"{"kind": "A", "metadata": {"name": "one"}}"#;
        assert_eq!(parse(json).unwrap().len(), 1);
    }

    #[test]
    fn hostile_documents_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let before = format!("*a{}, ", n - 1).repeat(10);
            bomb += &format!("a{n}: &a{n} [{}]\n", before.trim_end_matches(", "));
        }
        let deep = format!("a: {}{}", "[".repeat(500), "]".repeat(500));
        for hostile in [
            bomb.as_str(),
            deep.as_str(),
            "a: [",
            "kind: A\nkind: B\n",
            "\0",
        ] {
            assert!(
                parse(hostile).is_err(),
                "{}",
                &hostile[..hostile.len().min(60)]
            );
        }
        // The error of a broken Secret does not show it.
        let secret = "kind: Secret\ndata: {password: aHVudGVyMg==\nx";
        let error = format!("{:#}", parse(secret).unwrap_err());
        assert!(!error.contains("aHVudGVyMg"), "{error}");
    }
}
