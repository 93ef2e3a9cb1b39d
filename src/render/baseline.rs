//! What most routes agree on: said once for all, it costs less than said for each.

use std::collections::BTreeMap;

/// The most frequent of some values; among equally frequent ones the smallest.
pub(super) fn most_frequent<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::<T, usize>::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    // The last of equal maxima wins, so from the largest value down.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_the_most_frequent_wins_in_any_order() {
        assert_eq!(most_frequent([3, 1, 3, 2, 1].into_iter()), Some(1));
        assert_eq!(most_frequent([1, 3, 2, 3].into_iter()), Some(3));
        assert_eq!(most_frequent(std::iter::empty::<u8>()), None);
    }
}
