//! Waiting until an image is quiet: each question about it starts the wait anew, up to a bound. No I/O.

use std::collections::HashMap;

use tagtrail_proto::Image;
use tokio::time::Instant;

use crate::config::Pace;
use crate::question::Question;

/// Questions that wait, by image.
#[derive(Debug)]
pub(crate) struct Debounce<T = Question> {
    pace: Pace,
    waiting: HashMap<Image, Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    due: Instant,
    /// However much more is asked.
    latest: Instant,
    questions: Vec<T>,
}

impl Debounce<Question> {
    /// Takes a question. One that is given out again has waited before, but what it is about may have moved since.
    pub(crate) fn take(&mut self, question: Question, now: Instant) {
        self.add(question.image.clone(), question, now);
    }
}

impl<T> Debounce<T> {
    pub(crate) fn new(pace: Pace) -> Debounce<T> {
        Debounce {
            pace,
            waiting: HashMap::new(),
        }
    }

    fn add(&mut self, image: Image, question: T, now: Instant) {
        let pace = self.pace;
        let waiting = self.waiting.entry(image).or_insert_with(|| Waiting {
            due: now,
            latest: now + pace.longest,
            questions: Vec::new(),
        });
        waiting.due = (now + pace.quiet).min(waiting.latest);
        waiting.questions.push(question);
    }

    /// When the next image is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// The images that are due, with all questions about each.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Image, Vec<T>)> {
        let due = self.waiting.extract_if(|_, waiting| waiting.due <= now);
        due.map(|(image, waiting)| (image, waiting.questions))
            .collect()
    }

    /// Everything that still waits.
    pub(crate) fn rest(self) -> impl Iterator<Item = T> {
        self.waiting
            .into_values()
            .flat_map(|waiting| waiting.questions)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn image(name: &str) -> Image {
        format!("registry.example.com/{name}").parse().unwrap()
    }

    #[test]
    fn an_image_is_due_when_it_has_been_quiet() {
        let (mut debounce, start) = (Debounce::new(Pace::default()), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        debounce.add(image("a"), 1, at(0));
        debounce.add(image("b"), 2, at(500));
        debounce.add(image("a"), 3, at(1500));
        assert_eq!(debounce.next(), Some(at(2500)));
        assert_eq!(debounce.due(at(2499)), []);
        assert_eq!(debounce.due(at(2500)), [(image("b"), vec![2])]);
        assert_eq!(debounce.next(), Some(at(3500)));
        assert_eq!(debounce.due(at(9000)), [(image("a"), vec![1, 3])]);
        assert_eq!(debounce.next(), None);
    }

    #[test]
    fn an_image_that_is_never_quiet_is_asked_about_after_a_while() {
        let (mut debounce, start) = (Debounce::new(Pace::default()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..=40 {
            debounce.add(image("a"), second, at(second));
            let due = debounce.due(at(second));
            assert_eq!(!due.is_empty(), second == 30, "second {second}");
        }
    }

    #[test]
    fn what_still_waits_is_given_back() {
        let mut debounce = Debounce::new(Pace::default());
        debounce.add(image("a"), 1, Instant::now());
        debounce.add(image("b"), 2, Instant::now());
        let mut rest: Vec<i32> = debounce.rest().collect();
        rest.sort_unstable();
        assert_eq!(rest, [1, 2]);
    }
}
