//! Settings that are refused, with the name of the setting and the cause.

use tagtrail_policy::selection::ImagePolicy;

use super::settings::read;

#[test]
fn a_setting_that_cannot_be_used_is_refused_by_its_name() {
    let long = format!("glob = \"{}\"\nalphabetical = \"last\"", "a".repeat(257));
    let groups = format!(
        "alphabetical = \"last\"\nmatch = \"(a)\"\nextract = {:?}",
        "$1".repeat(17)
    );
    let many = format!("alphabetical = \"last\"\nignore = {:?}", ["a"; 65]);
    for (settings, field, part) in [
        ("", "repository", "nothing orders the tags"),
        (
            "semver = \"1\"\nnewest = \"pushed\"",
            "newest",
            "`semver` orders the tags already",
        ),
        (
            "tag = \"latest\"\ncalver = \"YYYY\"",
            "calver",
            "`tag` orders",
        ),
        ("tag = \"a b\"", "tag", "the tag"),
        (
            "tag = \"latest\"\nglob = \"*\"",
            "glob",
            "the only candidate",
        ),
        (
            "semver = \"nonsense\"",
            "semver.range",
            "\"nonsense\" is no version of a range",
        ),
        (
            "semver = \">=1,\"",
            "semver.range",
            "nothing follows the last comma",
        ),
        ("semver = \"1 ||\"", "semver.range", "beside ||"),
        ("semver = {}", "semver.range", "it is missing"),
        (
            "semver = { within = \"minor\" }",
            "semver.from",
            "it is missing",
        ),
        (
            "semver = { suffix = \"same\" }",
            "semver.from",
            "it is missing",
        ),
        (
            "semver = { range = \"*\", from = \"1.2.3\" }",
            "semver.from",
            "no effect",
        ),
        (
            "semver = { within = \"minor\", from = \"1.2\" }",
            "semver.from",
            "\"1.2\" is no version",
        ),
        (
            "semver = { within = \"all\", suffix = \"same\", from = \"1.2.3\" }",
            "semver.suffix",
            "every suffix",
        ),
        ("calver = \"YYYYY.0M\"", "calver", "'Y' begins no word"),
        (
            "calver = \"0D.0M.YYYY\"",
            "calver",
            "before month, week and day",
        ),
        ("calver = \"YYYY.0D.0M\"", "calver", "in this order"),
        ("calver = \"YYYY.YY\"", "calver", "each once"),
        ("calver = \"MAJOR.MINOR\"", "calver", "write the year"),
        ("calver = \"YYYY[.MICRO\"", "calver", "a ] is missing"),
        (
            "calver = \"YYYY-MODIFIER.MICRO\"",
            "calver",
            "MODIFIER is the last word",
        ),
        (
            "alphabetical = \"last\"\nmatch = \"(\"",
            "match",
            "unclosed group",
        ),
        (
            "alphabetical = \"last\"\nmatch = \"(?=a)b\"",
            "match",
            "look-around",
        ),
        (
            "alphabetical = \"last\"\nmatch = '(a)\\1'",
            "match",
            "backreferences",
        ),
        (
            "alphabetical = \"last\"\nmatch = '((a{1000}){1000})'",
            "match",
            "more than 1 MiB",
        ),
        (
            "alphabetical = \"last\"\nextract = \"$1\"",
            "extract",
            "add `match`",
        ),
        (
            "newest = \"pushed\"\nmatch = \"(a)\"\nextract = \"$1\"",
            "extract",
            "no effect with `newest`",
        ),
        (
            "alphabetical = \"last\"\nmatch = \"(a)\"\nextract = \"\\u0000\"",
            "extract",
            "printable",
        ),
        ("order = [\"n\"]", "order", "add `match`"),
        (
            "order = []\nmatch = \"(?<n>a)\"",
            "order",
            "write 1 to 8 groups",
        ),
        (
            "order = [\"m\"]\nmatch = \"(?<n>a)\"",
            "order",
            "no group \"m\"",
        ),
        (
            "order = [\"n:float\"]\nmatch = \"(?<n>a)\"",
            "order",
            "\"float\" is no type",
        ),
        (
            "alphabetical = \"last\"\nglob = \"[a\"",
            "glob",
            "[ begins a class",
        ),
        (
            "alphabetical = \"last\"\nignore = [\"a\", \"{b\"]",
            "ignore",
            "a } is missing",
        ),
        (
            "alphabetical = \"last\"\nignore = [\"a/b\"]",
            "ignore",
            "no tag contains '/'",
        ),
        (
            "alphabetical = \"last\"\nignore_match = [\"[\"]",
            "ignore_match",
            "unclosed",
        ),
        (
            "tag = \"a\"\nplatforms = [\"linux\"]",
            "platforms",
            "\"linux\" is no platform",
        ),
        (
            "tag = \"a\"\nplatforms = { any = [] }",
            "platforms",
            "name a platform",
        ),
        (
            "tag = \"a\"\nlabels = { a = [] }",
            "labels",
            "\"a\" has no value",
        ),
        (&long, "glob", "1 to 256 bytes"),
        (&groups, "extract", "at most 16 references"),
        (&many, "ignore", "at most 64 entries"),
    ] {
        let refused = read(settings).unwrap().compile().unwrap_err();
        assert_eq!(refused.field, field, "{settings}: {refused}");
        assert!(refused.cause.contains(part), "{settings}: {refused}");
    }
    for text in [
        "shop/api",
        "registry.example.com",
        "registry.example.com/shop/api:1",
        "a.example.com/b@sha256:1",
    ] {
        let policy = ImagePolicy {
            repository: text.to_owned(),
            ..ImagePolicy::default()
        };
        assert_eq!(policy.place().unwrap_err().field, "repository", "{text}");
    }
}
