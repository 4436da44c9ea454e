//! Who changed an image last, by the managed fields of an object.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::images::Place;

/// The field manager of Tagtrail's changes.
pub const MANAGER: &str = "tagtrail";

/// The owner of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The field manager, such as `kubectl-set`.
    pub manager: String,
    /// Time of the last change by this manager.
    pub since: Option<OffsetDateTime>,
}

impl Owner {
    /// Returns whether the owner is Tagtrail.
    #[must_use]
    pub fn is_us(&self) -> bool {
        self.manager == MANAGER
    }
}

/// Returns the owner of the reference at this place: of several owners of the same field, the one
/// with the newest time that is not Tagtrail. `None`: no managed field names the place.
#[must_use]
pub fn owner(object: &Value, place: &Place) -> Option<Owner> {
    let path = field_path(place);
    let entries = object.pointer("/metadata/managedFields");
    let entries = entries.and_then(Value::as_array).into_iter().flatten();
    let mut owners: Vec<(usize, bool, &str, &str)> = Vec::new();
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let fields = entry.get("fieldsV1");
        if let Some(depth) = fields.and_then(|fields| owned_to(fields, &path)) {
            let manager = text("manager");
            owners.push((depth, manager != MANAGER, text("time"), manager));
        }
    }
    // The creator of a custom resource still owns the map around a list that somebody else owns as
    // a whole.
    let (_, _, time, manager) = owners.into_iter().max()?;
    Some(Owner {
        manager: manager.to_owned(),
        since: OffsetDateTime::parse(time, &Rfc3339).ok(),
    })
}

/// Returns the number of keys of a path that an entry owns: all, or those up to a list that has one
/// owner as a whole. `None`: the entry does not own the field.
pub(crate) fn owned_to(fields: &Value, path: &[String]) -> Option<usize> {
    let mut at = fields;
    for (depth, key) in path.iter().enumerate() {
        match at.get(key) {
            Some(next) => at = next,
            // A list whose elements have no owners of their own has no keys.
            None if depth > 1 && at.as_object().is_some_and(serde_json::Map::is_empty) => {
                return Some(depth);
            }
            None => return None,
        }
    }
    Some(path.len())
}

/// Returns the keys of a place in `fieldsV1`: elements of these lists are named by `k:` and their
/// key.
pub(crate) fn field_path(place: &Place) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for part in place.at.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(_) => keys.push(format!("k:{}", serde_json::json!({"name": place.name}))),
            Err(_) => keys.push(format!("f:{part}")),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::images::places;

    #[test]
    fn the_manager_of_the_image_is_named() {
        let owned = |manager: &str, time: &str, field: &str| {
            json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": {"f:spec": {"f:template": {"f:spec": {
                "f:containers": {"k:{\"name\":\"web\"}": {field: {}}}}}}}})
        };
        let mut object = json!({
            "metadata": {"managedFields": [
                owned("kubectl-client-side-apply", "2026-01-01T00:00:00Z", "f:env"),
                owned("tagtrail", "2026-01-03T00:00:00Z", "f:image"),
            ]},
            "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "r.example.com/web:1"}]}}},
        });
        let place = places(&object, "/spec/template/spec").remove(0);
        assert!(owner(&object, &place).unwrap().is_us());
        let fields = object.pointer_mut("/metadata/managedFields").unwrap();
        let fields = fields.as_array_mut().unwrap();
        fields.push(owned("kubectl-set", "2026-01-02T00:00:00Z", "f:image"));
        let found = owner(&object, &place).unwrap();
        assert_eq!(found.manager, "kubectl-set");
        assert_eq!(found.since.unwrap().day(), 2);
        assert_eq!(owner(&json!({}), &place), None);
        // A list of a custom resource has one owner as a whole.
        let list = json!({"metadata": {"managedFields": [{"manager": "argocd", "fieldsV1": {"f:spec": {"f:source": {"f:images": {}}, "f:x": {}}}}]}});
        let at = |at: &str| Place {
            at: at.to_owned(),
            ..place.clone()
        };
        assert_eq!(
            owner(&list, &at("/spec/source/images/0")).unwrap().manager,
            "argocd"
        );
        assert_eq!(owner(&list, &at("/spec/source/other/0")), None);
        // The creator keeps the map around the list after a change of the list.
        let lists = |last: &str| {
            json!({"metadata": {"managedFields": [
                {"manager": "kubectl-create", "time": "2026-01-04T00:00:00Z", "fieldsV1": {"f:spec": {"f:source": {}}}},
                {"manager": "old", "time": "2026-01-01T00:00:00Z"},
                {"manager": last, "time": "2026-01-03T00:00:00Z", "fieldsV1": {"f:spec": {"f:source": {"f:images": {}}}}},
            ]}})
        };
        for last in [MANAGER, "kubectl-patch"] {
            let found = owner(&lists(last), &at("/spec/source/images/0")).unwrap();
            assert_eq!(found.manager, last);
        }
    }
}
