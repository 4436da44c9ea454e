use std::path::Path;

use super::*;
use crate::File;

const FILE: &str = r#"
[[source]]
name = "forge"
kind = "forgejo"
registry = "forge.local"
secret = { env = "S" }

[[registry]]
name = "hub.example.com"
url = "https://hub.example.com"
aliases = ["127.0.0.1:5000", "Virtual.example.com", "local", "hub.example.com:443"]

[[registry]]
name = "forge.example.com:3000"
url = "https://forge.example.com:3000"
aliases = ["forge.local"]
"#;

fn parse(text: &str) -> Result<File, ConfigError> {
    File::parse(text, Path::new("tagtrail.toml"))
}

fn names() -> Names {
    parse(FILE).unwrap().names().clone()
}

#[test]
fn an_image_under_an_alias_is_the_registrys() {
    for (text, expected) in [
        ("127.0.0.1:5000/shop/web", "hub.example.com/shop/web:latest"),
        ("VIRTUAL.example.com/a:v1", "hub.example.com/a:v1"),
        ("hub.example.com:443/a:V1", "hub.example.com/a:V1"),
        ("local/shop/web:v1", "hub.example.com/shop/web:v1"),
        ("localhost/shop/web:v1", "localhost/shop/web:v1"),
        (
            "other.example.com/local/a:v1",
            "other.example.com/local/a:v1",
        ),
        (
            "forge.example.com:3000/a/b:RC1",
            "forge.example.com:3000/a/b:rc1",
        ),
        ("forge.local/a/b:RC1", "forge.example.com:3000/a/b:rc1"),
    ] {
        let image = names().image(text).unwrap();
        assert_eq!(image.to_string(), expected, "{text}");
        assert_eq!(names().image(expected).unwrap(), image, "{text}");
    }
    for wrong in ["local", "shop/web", "127.0.0.1:5000", "local/Shop"] {
        assert!(names().image(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_pattern_under_an_alias_matches_in_the_registry() {
    for (pattern, image, expected) in [
        (
            "127.0.0.1:5000/shop/**",
            "hub.example.com/shop/web:v1",
            true,
        ),
        (
            "127.0.0.1:5000/shop/**",
            "other.example.com/shop/web:v1",
            false,
        ),
        ("127.0.*:5000/**:v1", "hub.example.com/shop/web:v1", true),
        ("127.0.*:5000/**:v1", "127.0.0.2:5000/shop/web:v1", true),
        ("virtual.*/**", "hub.example.com/shop/web:v1", true),
        ("vir*/web", "hub.example.com/web:v1", true),
        ("vir*/web", "other.example.com/virus/web:v1", true),
        // Not any registry with a path that begins with `local`.
        ("local/**", "hub.example.com/shop/web:v1", true),
        ("local/**", "other.example.com/local/web:v1", false),
        ("shop/**", "other.example.com/shop/web:v1", true),
        ("**:RC*", "forge.example.com:3000/a/b:rc1", true),
        ("**:RC*", "hub.example.com/a/b:rc1", false),
        ("forge.local/**:RC1", "forge.example.com:3000/a/b:rc1", true),
    ] {
        let matched = names()
            .pattern(pattern)
            .unwrap()
            .matches(&image.parse().unwrap());
        assert_eq!(matched, expected, "{pattern} {image}");
    }
    assert!(names().pattern("local/").is_err());
}

#[test]
fn an_alias_means_one_registry() {
    let aliases = |first: &str, second: &str| {
        let text = FILE
            .replace("\"local\"", first)
            .replace("[\"forge.local\"]", &format!("[{second}]"));
        parse(&text).unwrap().broken[0].problem.to_string()
    };
    for (first, second, expected) in [
        (
            "\"x\"",
            "\"x\"",
            "tagtrail.toml:16: registry.aliases: x is an alias of hub.example.com already; keep one",
        ),
        (
            "\"x\", \"x\"",
            "\"y\"",
            "tagtrail.toml:11: registry.aliases: x is an alias of hub.example.com already; keep one",
        ),
        (
            "\"forge.example.com:3000\"",
            "\"y\"",
            "tagtrail.toml:11: registry.aliases: forge.example.com:3000 is the name of a registry; remove the alias",
        ),
        (
            "\"HUB.example.com\"",
            "\"y\"",
            "tagtrail.toml:11: registry.aliases: hub.example.com is the name of a registry; remove the alias",
        ),
        (
            "\"a/b\"",
            "\"y\"",
            "tagtrail.toml:11: registry.aliases: \"a/b\" is no alias; write a registry, such as \"127.0.0.1:5000\", or a name of a-z 0-9 -, such as \"local\"",
        ),
    ] {
        assert_eq!(aliases(first, second), expected);
    }
}

#[test]
fn the_images_of_triggers_are_read_by_these_names() {
    let trigger = "[[trigger]]\nname = 'shop'\ntarget.webhook = {}\nimages.web = 'local/shop/web:V1'\nimages.app = 'forge.local/a/app:RC1'\n";
    let file = parse(&format!("{FILE}{trigger}")).unwrap();
    let images: Vec<String> = file.trigger[0]
        .images
        .values()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        images,
        [
            "forge.example.com:3000/a/app:rc1",
            "hub.example.com/shop/web:V1"
        ]
    );
    assert_eq!(
        file.warnings(),
        [
            "tagtrail.toml:21: trigger.images.app: forge.example.com:3000 writes tags in lower case, so forge.local/a/app:RC1 is read as forge.example.com:3000/a/app:rc1"
        ]
    );
    let wrong = parse(&format!(
        "{FILE}{}",
        trigger.replace("local/shop", "remote/shop")
    ));
    let wrong = wrong.unwrap().broken[0].problem.to_string();
    assert!(
        wrong.starts_with("tagtrail.toml:20: trigger.images.web: the registry \"remote\""),
        "{wrong}"
    );
}
