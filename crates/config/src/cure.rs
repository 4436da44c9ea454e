//! Cures for mistakes that the parser finds.

/// Returns the cure for a mistake in a key, to be added to the parser's message.
pub(crate) fn cure(key: &str, message: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let wants_list = message.starts_with("invalid type: map, expected a sequence");
    match last {
        _ if message.starts_with("missing field") => "; add it".to_owned(),
        _ if message.starts_with("unknown field") => {
            // The first word in backticks is the key, the others are the known keys.
            let mut words = message.split('`').skip(1).step_by(2);
            let given = words.next().unwrap_or_default();
            let known: Vec<&str> = words.collect();
            let meant = closest(given, &known);
            meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
        }
        "source" | "registry" | "trigger" | "token" if wants_list => {
            format!("; write [[{last}]], with two brackets on each side: there may be several")
        }
        "images" => {
            "; write a line for each image: images.web = \"registry.example.com/shop/web:latest\""
                .to_owned()
        }
        _ => String::new(),
    }
}

/// Returns the known word that is most like the given one, if two thirds of it are alike.
#[must_use]
pub fn closest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |word: &&str| strsim::normalized_damerau_levenshtein(word, given);
    let like = known.iter().copied().filter(|word| likeness(word) > 0.6);
    like.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
}
