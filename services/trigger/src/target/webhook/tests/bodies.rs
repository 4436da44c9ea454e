//! Bodies from templates.

use super::*;

#[tokio::test]
async fn a_body_is_rendered_from_the_rollout_as_recorded() {
    let (folder, sink) = (Folder::new(), Sink::start().await);
    let url = sink.url();
    let pinned = format!("registry.example.com/shop/web@sha256:{}", "a".repeat(64));
    for (settings, content_type, expected) in [
        (
            "body = '{\"image\": {{ images.web.pinned }}, \"n\": {{ number }}, \"all\": {{ cause }}, \"at\": {{ attempts }}}'",
            "application/json",
            format!(
                "{{\"image\": \"{pinned}\", \"n\": 7, \"all\": {{\"changed\":[\"web\"],\"reason\":\"revision\"}}, \"at\": 0}}"
            ),
        ),
        (
            "body = '{\"text\": {{ \"*deploy* \" ~ images.web.pinned }}, \"bold\": \"*\"}'\nsecret = { file = 'old' }",
            "application/json",
            format!("{{\"text\": \"*deploy* {pinned}\", \"bold\": \"*\"}}"),
        ),
        (
            "body = '{% for name, one in images|items %}{{ name }} {{ one.digest[:14] }} {{ one.image|split(\":\")|last|upper }}{% if not loop.last %}, {% endif %}{% endfor %}'\ncontent_type = 'text/plain'",
            "text/plain",
            "web sha256:aaaaaaa LATEST".to_owned(),
        ),
    ] {
        let target = folder.target(&format!("url = '{url}'\n{settings}"));
        for _ in 0..2 {
            assert_eq!(target.apply(&order()).await, Outcome::Done);
        }
        let deliveries = sink.deliveries();
        let [.., first, second] = &deliveries[..] else {
            panic!("two requests");
        };
        assert_eq!(String::from_utf8_lossy(&first.body), expected);
        assert_eq!(first.body, second.body);
        assert_eq!(first.header("content-type"), content_type);
        let signature = first.header("webhook-signature");
        if settings.contains("secret") {
            let key = crate::target::signature::SigningKey::parse(OLD).unwrap();
            let at = first.header("webhook-timestamp").parse().unwrap();
            let id = first.header("webhook-id");
            assert_eq!(signature, signatures(&[key], id, at, &first.body).unwrap());
        }
    }
}

#[test]
fn a_wrong_body_is_refused_with_its_place() {
    let folder = Folder::new();
    for (body, expected) in [
        (
            "{\"a\": {{ images.wbe.pinned }}}",
            "body: line 1: undefined value: `images.wbe` is undefined",
        ),
        ("{\n\"a\": {{ number }\n}", "body: line 2: syntax error"),
        (
            "{\"a\": \"{{ images.web.pinned }}\"}",
            "body: with a sample rollout the body is not JSON: expected `,` or `}` at line 1 column 9, after \"{\\\"a\\\": \\\"\\\"r\"; an expression prints its own quotes",
        ),
        (
            "deploy",
            "body: with a sample rollout the body is not JSON: expected value at line 1 column 1",
        ),
        (
            "{% set a = 1 %}1",
            "body: line 1: {% set %} is not supported; the tags are for, if, elif and else",
        ),
        (
            "1\n{%- include 'x' %}",
            "body: line 2: {% include %} is not supported",
        ),
        (
            "{% for a in cause.changed recursive %}{{ loop(a) }}{% endfor %}1",
            "body: line 1: a loop goes over a part of the rollout, such as {% for name, one in images|items %}",
        ),
        (
            "\n{% for a in [id ~ id] %}{% for b in [a ~ a] %}{{ b ~ b }}{% endfor %}{% endfor %}",
            "body: line 1: a loop goes over a part of the rollout",
        ),
        ("{{ 'x' * 100000000000 }}", "body: line 1: syntax error"),
        (
            "{{ number|replace('1', '11') }}",
            "body: line 1: unknown filter",
        ),
        ("{{ range(3) }}", "body: line 1: unknown function"),
        (
            "{% for a in id %}{% for b in id %}{% for c in id %}{% for d in id %}1{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
            "body: line 1: engine ran out of fuel",
        ),
        (
            &format!(
                "{{% for a in id %}}{{% for b in id %}}{}{{% endfor %}}{{% endfor %}}",
                "x".repeat(2000)
            ),
            "body: failed to write output: I/O error during rendering: the body has more than 1 MiB",
        ),
        (
            &"x".repeat(16 * 1024 + 1),
            "body: the template has more than 16384 bytes",
        ),
    ] {
        let settings = format!("url = 'https://a.example.com'\nbody = '''{body}'''");
        let error = folder.refused(&settings);
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}
