//! From pages of the balloon to ranges of whole pages of the host.

use super::PAGE;
use std::ops::Range;

/// The ranges of addresses that `pages`, by their numbers, make up together, in ascending order. Puts the numbers in
/// order: some guests name the pages of one run downwards.
pub(super) fn runs(pages: &mut [u32]) -> impl Iterator<Item = Range<u64>> + '_ {
    pages.sort_unstable();
    pages.chunk_by(|page, next| next - page <= 1).filter_map(|run| {
        let (first, last) = (u64::from(*run.first()?), u64::from(*run.last()?));
        Some(first * PAGE..(last + 1) * PAGE)
    })
}

/// What of `range` are whole pages of `size` bytes, a power of 2.
pub(super) fn whole(range: &Range<u64>, size: u64) -> Option<Range<u64>> {
    let start = range.start.checked_next_multiple_of(size)?;
    let end = range.end & !(size - 1);
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Every page is in exactly one run, no other is, and runs do not touch.
        #[test]
        fn runs_are_the_pages(pages in prop::collection::vec(prop_oneof![0..40_u32, any::<u32>()], 0..60)) {
            let named: BTreeSet<u64> = pages.iter().map(|page| u64::from(*page)).collect();
            let runs: Vec<_> = runs(&mut pages.clone()).collect();
            let found: Vec<u64> = runs.iter().flat_map(|run| run.start / PAGE..run.end / PAGE).collect();
            prop_assert_eq!(found, named.into_iter().collect::<Vec<_>>());
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        /// The whole pages lie in the range, and what is left at either end is less than one.
        #[test]
        fn whole_pages_are_inside(start in 0..1_u64 << 40, length in 0..1_u64 << 20, shift in 12..17) {
            let (range, size) = (start..start + length, 1_u64 << shift);
            match whole(&range, size) {
                Some(found) => {
                    prop_assert!(found.start % size == 0 && found.end % size == 0 && found.start < found.end);
                    prop_assert!(found.start - range.start < size && range.end - found.end < size);
                    prop_assert!(range.start <= found.start && found.end <= range.end);
                }
                None => prop_assert!(length < 2 * size),
            }
        }
    }

    #[test]
    fn the_end_of_the_address_space_is_no_page() {
        assert_eq!(whole(&(u64::MAX - 5..u64::MAX), 4096), None);
        assert_eq!(whole(&(1..4095), 4096), None);
    }
}
