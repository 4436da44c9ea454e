//! Names, images, digests and subjects: a parsed value is written as it was read, and nothing
//! panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tagtrail_proto::{
    Digest, Image, Name, Registry, Repository, Subject, Tag, TraceContext, clean_text, escape,
    partition_of,
};

fn same<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let written = read.to_string();
        let again = written
            .parse::<T>()
            .ok()
            .expect("what is written can be read");
        assert_eq!(again, read);
    }
}

fuzz_target!(|text: &str| {
    same::<Registry>(text);
    same::<Repository>(text);
    same::<Tag>(text);
    same::<Name>(text);
    same::<Digest>(text);
    same::<Subject>(text);
    same::<TraceContext>(text);
    if let Ok(image) = text.parse::<Image>() {
        assert_eq!(image.to_string().parse::<Image>().expect("an image"), image);
        let subject = Subject::of_revisions(&image);
        assert_eq!(
            subject.to_string().parse::<Subject>().expect("a subject"),
            subject
        );
        assert!(partition_of(&image.registry, &image.repository, 8) < 8);
    }
    let escaped = escape(text);
    assert!(
        !escaped.contains(['.', '*', '>', ' ', '\r', '\n']),
        "{escaped:?}"
    );
    let clean = clean_text(text, 100);
    assert!(clean.len() <= 100 && !clean.chars().any(char::is_control));
});
