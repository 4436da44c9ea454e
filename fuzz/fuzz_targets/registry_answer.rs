//! Answers of registries: each is accepted or refused, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tagtrail_proto::Digest;

// The input: two bytes of status, then lines of headers up to an empty line, then the body.
fuzz_target!(|input: &[u8]| {
    let Some((status, rest)) = input.split_at_checked(2) else {
        return;
    };
    let status = 200 + u16::from_be_bytes([status[0], status[1]]) % 400;
    let end = rest.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&rest[..end], &rest[end + 2..]),
        None => (rest, &[][..]),
    };
    let headers = head.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], &line[colon + 1..]))
    });
    let headers: Vec<_> = headers.collect();
    let answer = || {
        let mut answer = http::Response::builder().status(status);
        for (name, value) in &headers {
            // The HTTP library drops invalid headers before the client sees them.
            if let (Ok(name), Ok(value)) = (
                http::HeaderName::from_bytes(name),
                http::HeaderValue::from_bytes(value),
            ) {
                answer = answer.header(name, value);
            }
        }
        let answer = answer.body(body.to_vec()).expect("an answer");
        reqwest::Response::from(answer)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let (_, hashed) = runtime
        .expect("a runtime")
        .block_on(tagtrail_registry::fuzz::answers(answer));
    if let Ok(found) = hashed {
        let right = [Digest::sha256_of(body), Digest::sha512_of(body)];
        assert!(right.contains(&found.digest), "a digest of other bytes");
    }
});
