//! The best tags of a policy, collected while its repository is read.

use std::collections::BTreeMap;

use tagtrail_policy::selection::Key;

use crate::store::filling::Filled;

/// The tags with the greatest keys of those seen.
#[derive(Debug)]
pub(super) struct Best {
    room: i32,
    /// The tags by their keys, and the keys by their tags.
    tags: BTreeMap<Key, i64>,
    keys: BTreeMap<i64, Key>,
    /// The greatest key that was left out.
    left_out: Option<Key>,
}

impl Best {
    pub(super) fn with_room(room: i32) -> Best {
        Best {
            room,
            tags: BTreeMap::new(),
            keys: BTreeMap::new(),
            left_out: None,
        }
    }

    /// Sets the key of a tag, or removes a tag that the rule does not accept.
    pub(super) fn set(&mut self, tag: i64, key: Option<Key>) {
        if let Some(old) = self.keys.remove(&tag) {
            self.tags.remove(&old);
        }
        let Some(key) = key else { return };
        self.keys.insert(tag, key.clone());
        self.tags.insert(key, tag);
        if self.tags.len() > usize::try_from(self.room).unwrap_or(0)
            && let Some((key, tag)) = self.tags.pop_first()
        {
            self.keys.remove(&tag);
            self.left_out = self.left_out.take().max(Some(key));
        }
    }

    /// Returns the candidates, and the least key from which on they are complete.
    pub(super) fn filled(self, policy: i32) -> Filled {
        let mut best = self.tags;
        let floor = match self.left_out {
            None => Vec::new(),
            Some(left_out) => {
                best.retain(|key, _| *key > left_out);
                // Without a greater key: the first one after it.
                let after = || [left_out.as_bytes(), &[0]].concat();
                best.first_key_value()
                    .map_or_else(after, |(key, _)| key.as_bytes().to_vec())
            }
        };
        Filled {
            policy,
            floor,
            room: self.room,
            best: best.into_iter().map(|(key, tag)| (tag, key)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: u8) -> Key {
        Key::from_bytes(vec![of])
    }

    /// Returns the tags of a policy with room for two, and the floor.
    fn filled(steps: &[(i64, Option<u8>)]) -> (Vec<i64>, Vec<u8>) {
        let mut best = Best::with_room(2);
        for (tag, of) in steps {
            best.set(*tag, of.map(key));
        }
        let filled = best.filled(1);
        let tags = filled.best.into_iter().map(|(tag, _)| tag).collect();
        (tags, filled.floor)
    }

    #[test]
    fn the_greatest_keys_stay_and_the_least_of_them_is_the_floor() {
        assert_eq!(filled(&[(1, Some(1)), (2, Some(2))]), (vec![1, 2], vec![]));
        let three = [(1, Some(3)), (2, Some(1)), (3, Some(2))];
        assert_eq!(filled(&three), (vec![3, 1], vec![2]));
    }

    #[test]
    fn a_tag_that_was_read_again_counts_with_its_last_key() {
        let again = [(1, Some(1)), (1, Some(5)), (2, Some(2)), (1, Some(5))];
        assert_eq!(filled(&again), (vec![2, 1], vec![]));
        let gone = [(1, Some(1)), (2, Some(2)), (1, None), (1, None)];
        assert_eq!(filled(&gone), (vec![2], vec![]));
    }

    #[test]
    fn no_candidate_stays_below_a_key_that_was_left_out() {
        // Key 3 was left out, so tag 1, which falls to 2, must not count as complete.
        let fell = [(1, Some(9)), (2, Some(8)), (3, Some(3)), (1, Some(2))];
        assert_eq!(filled(&fell), (vec![2], vec![8]));
        let all = [
            (1, Some(9)),
            (2, Some(8)),
            (3, Some(3)),
            (1, None),
            (2, None),
        ];
        assert_eq!(filled(&all), (vec![], vec![3, 0]));
    }
}
