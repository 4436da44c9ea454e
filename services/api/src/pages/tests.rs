//! The table of pages.

use std::collections::BTreeSet;

use super::*;

/// Browsers ignore the missing end of an element of HTML such as `<br>`; an element of SVG without
/// an end swallows those after it.
#[test]
fn elements_of_drawings_are_closed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pages");
    let mut folders = vec![folder];
    let (mut files, mut open) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                open.extend(
                    text.lines()
                        .filter(|line| !line.contains("mod ") && is_open(line))
                        .map(|line| format!("{}: {line}", path.display())),
                );
            }
        }
    }
    assert!(files > 10);
    assert!(
        open.is_empty(),
        "end these with {{}}, not with ;\n{open:#?}"
    );
    assert!(is_open("rect width=\"16\" rx=\"4\";") && is_open("svg { use href=\"#a\"; }"));
    assert!(!is_open("use maud::html;") && !is_open("rect x=\"1\" {} use {}"));
}

/// Whether a line of markup has an element of SVG that ends with a semicolon.
fn is_open(line: &str) -> bool {
    const ELEMENTS: [&str; 7] = ["rect", "line", "circle", "use", "polyline", "path", "text"];
    let code = line.split("//").next().unwrap_or_default();
    ELEMENTS.iter().any(|element| {
        code.match_indices(element).any(|(at, _)| {
            let (before, after) = (&code[..at], &code[at + element.len()..]);
            let starts = before.is_empty() || before.ends_with([' ', '{']);
            let Some(end) = after.find([';', '{']) else {
                return false;
            };
            let attributes = &after[..end];
            let has_attribute = attributes.trim().is_empty()
                || attributes.contains("=\"")
                || attributes.contains("=(");
            starts && after[end..].starts_with(';') && has_attribute && !attributes.contains("::")
        })
    })
}

#[test]
fn pages_have_ids_of_their_own() {
    let ids: BTreeSet<&str> = ALL.iter().map(|page| page.id).collect();
    assert_eq!(ids.len(), ALL.len());
    assert!(ALL.iter().all(|page| page.id.starts_with("page_")));
}
