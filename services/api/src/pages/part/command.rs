//! The command that prints the rows of a page, as a person may paste it into a shell.

/// Returns a command of `tagtrail` with its words, and with the flags that have a value.
pub(crate) fn command(words: &[&str], flags: &[(&str, Option<&str>)]) -> String {
    let mut command = "tagtrail".to_owned();
    for word in words {
        command += &format!(" {}", quoted(word));
    }
    for (flag, value) in flags {
        if let Some(value) = value {
            // A value that begins with a hyphen would count as a flag.
            let joint = if value.starts_with('-') { "=" } else { " " };
            command.extend([" ", "--", flag, joint, &quoted(value)]);
        }
    }
    command
}

/// Returns a word as a shell (POSIX) takes it literally.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-./:@%+,".contains(char);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_holds_the_flags_with_a_value_and_no_text_of_strangers_is_code() {
        let flags = [("state", None), ("contains", Some("shop/web"))];
        assert_eq!(
            command(&["rollouts", "shop"], &flags),
            "tagtrail rollouts shop --contains shop/web"
        );
        assert_eq!(
            command(&["images"], &[("contains", Some("a'; rm $(x)"))]),
            r"tagtrail images --contains 'a'\''; rm $(x)'"
        );
        assert_eq!(
            command(&["images"], &[("contains", Some("-web"))]),
            "tagtrail images --contains=-web"
        );
    }
}
