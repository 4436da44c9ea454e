//! Holds questions until their image is quiet: each question restarts the wait, up to a bound. No
//! I/O.

use std::collections::HashMap;
use std::time::Duration;

use tagtrail_proto::Image;
use tokio::time::Instant;

use super::question::Question;
use crate::config::Pace;

/// Waiting questions by image.
#[derive(Debug)]
pub(super) struct Debounce<T = Question> {
    pace: Pace,
    waiting: HashMap<Image, Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    due: Instant,
    /// The bound of `due`, however many questions follow.
    latest: Instant,
    questions: Vec<T>,
}

impl Debounce<Question> {
    /// Adds a question. A redelivered question waits again, because the tag may have moved since.
    pub(super) fn take(&mut self, question: Question, now: Instant) {
        let wait = match question.is_second_look() {
            true => self.pace.second,
            false => self.pace.quiet,
        };
        self.add(question.image.clone(), question, wait, now);
    }
}

impl<T> Debounce<T> {
    pub(super) fn new(pace: Pace) -> Debounce<T> {
        Debounce {
            pace,
            waiting: HashMap::new(),
        }
    }

    fn add(&mut self, image: Image, question: T, wait: Duration, now: Instant) {
        let longest = self.pace.longest;
        let waiting = self.waiting.entry(image).or_insert_with(|| Waiting {
            due: now,
            latest: now + longest,
            questions: Vec::new(),
        });
        // A second look goes with a new question about the image, without a delay for the latter.
        if waiting.questions.is_empty() || wait == self.pace.quiet {
            waiting.due = (now + wait).min(waiting.latest);
        }
        waiting.questions.push(question);
    }

    /// Returns the time at which the next image is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// Removes the images that are due, with all questions about each.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Image, Vec<T>)> {
        let due = self.waiting.extract_if(|_, waiting| waiting.due <= now);
        due.map(|(image, waiting)| (image, waiting.questions))
            .collect()
    }

    /// Returns all questions that still wait.
    pub(super) fn rest(self) -> impl Iterator<Item = T> {
        self.waiting
            .into_values()
            .flat_map(|waiting| waiting.questions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);
    const SECOND: Duration = Duration::from_secs(10);

    fn image(name: &str) -> Image {
        format!("registry.example.com/{name}").parse().unwrap()
    }

    #[test]
    fn an_image_is_due_when_it_has_been_quiet() {
        let (mut debounce, start) = (Debounce::new(Pace::default()), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        debounce.add(image("a"), 1, QUIET, at(0));
        debounce.add(image("b"), 2, QUIET, at(500));
        debounce.add(image("a"), 3, QUIET, at(1500));
        assert_eq!(debounce.next(), Some(at(2500)));
        assert_eq!(debounce.due(at(2499)), []);
        assert_eq!(debounce.due(at(2500)), [(image("b"), vec![2])]);
        assert_eq!(debounce.next(), Some(at(3500)));
        assert_eq!(debounce.due(at(9000)), [(image("a"), vec![1, 3])]);
        assert_eq!(debounce.next(), None);
    }

    #[test]
    fn an_image_that_is_never_quiet_is_due_at_the_bound() {
        let (mut debounce, start) = (Debounce::new(Pace::default()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..=40 {
            debounce.add(image("a"), second, QUIET, at(second));
            let due = debounce.due(at(second));
            assert_eq!(!due.is_empty(), second == 30, "second {second}");
        }
    }

    #[test]
    fn a_second_look_waits_longer_and_goes_with_a_new_question() {
        let (mut debounce, start) = (Debounce::new(Pace::default()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        debounce.add(image("a"), 1, SECOND, at(0));
        debounce.add(image("b"), 2, SECOND, at(0));
        debounce.add(image("a"), 3, QUIET, at(1));
        debounce.add(image("a"), 4, SECOND, at(2));
        assert_eq!(debounce.due(at(3)), [(image("a"), vec![1, 3, 4])]);
        assert_eq!(debounce.due(at(9)), []);
        assert_eq!(debounce.due(at(10)), [(image("b"), vec![2])]);
    }

    #[test]
    fn waiting_questions_are_returned() {
        let mut debounce = Debounce::new(Pace::default());
        debounce.add(image("a"), 1, QUIET, Instant::now());
        debounce.add(image("b"), 2, QUIET, Instant::now());
        let mut rest: Vec<i32> = debounce.rest().collect();
        rest.sort_unstable();
        assert_eq!(rest, [1, 2]);
    }
}
