//! Paths of the annotation to the image of a container.

use serde_json::Value;

/// The grammar of a path after the pod spec.
const FORM: &str = "is not valid; write containers[?(@.name==\"NAME\")].image after the pod spec, \
                    initContainers in place of containers, or a number in place of ?(…)";

/// The reason why a path names no container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// The path is not below the pod spec: that begins with this text.
    Elsewhere(String),
    /// The path can't be read, or no container is there.
    Wrong(String),
}

/// Returns the name of the container that a `fieldPath` names, by its name or by its place, such as
/// `spec.template.spec.containers[?(@.name=="web")].image`. `at` is the place of the pod spec in
/// the object, as a JSON pointer.
///
/// # Errors
/// If the path names no container of the object.
pub fn container(path: &str, object: &Value, at: &str) -> Result<String, PathError> {
    let base = format!("{}.", at.trim_start_matches('/').replace('/', "."));
    match path.strip_prefix(&base) {
        Some(rest) => below(rest, object, at).map_err(PathError::Wrong),
        None => Err(PathError::Elsewhere(base)),
    }
}

fn below(rest: &str, object: &Value, at: &str) -> Result<String, String> {
    let (list, other, rest) = match rest.strip_prefix("containers[") {
        Some(rest) => ("containers", "initContainers", rest),
        None => {
            let rest = rest.strip_prefix("initContainers[").ok_or(FORM)?;
            ("initContainers", "containers", rest)
        }
    };
    let selector = rest.strip_suffix("].image").ok_or(FORM)?;
    if !selector.is_empty() && selector.bytes().all(|byte| byte.is_ascii_digit()) {
        let names = names(object, at, list);
        let index = selector.parse::<usize>().ok();
        let name = index.and_then(|index| *names.get(index)?);
        let count = names.len();
        return name
            .map(str::to_owned)
            .ok_or_else(|| format!("names no container, since {list} has {count}"));
    }
    let name = selector
        .strip_prefix("?(@.name==\"")
        .and_then(|rest| rest.strip_suffix("\")"))
        .filter(|name| !name.is_empty() && !name.contains(['"', ']']))
        .ok_or(FORM)?;
    // OpenShift looks for a name in both lists, whichever the path names.
    let mut lists = [list, other].into_iter();
    match lists.any(|list| names(object, at, list).contains(&Some(name))) {
        true => Ok(name.to_owned()),
        false => Err("names no container of the object".to_owned()),
    }
}

/// Returns the names of the containers of a list.
fn names<'a>(object: &'a Value, at: &str, list: &str) -> Vec<Option<&'a str>> {
    let containers = object.pointer(&format!("{at}/{list}"));
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    containers
        .map(|one| one.get("name").and_then(Value::as_str))
        .collect()
}
