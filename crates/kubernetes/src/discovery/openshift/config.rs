//! The triggers of a `DeploymentConfig`.

use serde_json::Value;

use super::{MOST, Reading, field, of, shown};

/// Reads `spec.triggers` of a `DeploymentConfig`. `false`: no trigger follows an image.
pub(super) fn read(reading: &mut Reading<'_>) -> Result<bool, String> {
    let triggers = reading.annotated.object.pointer("/spec/triggers");
    let triggers = triggers.and_then(Value::as_array);
    let triggers = triggers.map_or(&[][..], Vec::as_slice);
    if triggers.len() > MOST {
        return Err(format!(
            "spec.triggers has {} entries; at most {MOST} are read",
            triggers.len()
        ));
    }
    let mut some = false;
    for (index, trigger) in triggers.iter().enumerate() {
        // OpenShift looks at this field alone, and not at the type.
        let change = trigger.get("imageChangeParams");
        if let Some(change) = change.filter(|change| change.is_object()) {
            some = true;
            read_change(reading, index, change)?;
        }
    }
    Ok(some)
}

fn read_change(reading: &mut Reading<'_>, index: usize, change: &Value) -> Result<(), String> {
    let (automatic, warning) = field::switch(change, "automatic").map_err(|why| of(index, &why))?;
    if let Some(warning) = warning {
        reading.warn(index, &warning);
    }
    let Some(image) = reading.image(index, field::of(change, "from"))? else {
        return Ok(());
    };
    let names = match field::of(change, "containerNames") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(names)) if names.len() <= MOST => names.as_slice(),
        Some(other) => {
            let other = shown(&other.to_string());
            let text = format!("containerNames is {other}; write a list of at most {MOST} names");
            return Err(of(index, &text));
        }
    };
    let last = field::of(change, "lastTriggeredImage").and_then(Value::as_str);
    reading.all_known &= !automatic || !last.unwrap_or_default().is_empty();
    for (number, name) in names.iter().enumerate() {
        let name = name.as_str().ok_or_else(|| {
            let name = shown(&name.to_string());
            of(index, &format!("containerNames: {name} is no name"))
        })?;
        reading.add(index, name, (&image, !automatic))?;
        // The controllers of OpenShift take a trigger without its last image for one that has found
        // no image yet, and do not deploy.
        if number == 0 {
            reading.remember(name, index, !automatic);
        }
    }
    Ok(())
}
