//! What the maps of two files tell of each other. Rules 1 to 4 of [`super`] are here.

use std::fs::File;
use std::ops::Range;

use super::BLOCK;
use crate::Result;
use crate::fiemap::{Extent, Holds, Map};

/// Whether the map of a file is what it was in a window, however it is divided.
pub(super) fn is_still(
    file: &File,
    then: &[Extent],
    window: Range<u64>,
    map: &mut Map,
) -> Result<bool> {
    let (mut at, mut is_still) = (window.start, true);
    while is_still && at < window.end {
        let Some((now, told)) = map.read(file, &(at..window.end), false)? else {
            return Ok(false);
        };
        let mut moved = |range: Range<u64>| {
            // What tells nothing was never taken for equal.
            is_still &= then.iter().any(|one| {
                one.holds() == Holds::Untold && (one.logical..one.end()).contains(&range.start)
            });
        };
        differences(then, now, at..told, &mut |_| Ok(true), &mut moved)?;
        at = told;
    }
    Ok(is_still)
}

/// Whether what is told as one encoded extent is one, and no row of them: then its last block lies at
/// the same place.
pub(super) fn is_one(file: &File, extent: &Extent, map: &mut Map) -> Result<bool> {
    let last = extent.end().saturating_sub(BLOCK).max(extent.logical)..extent.end();
    let Some((told, _)) = map.read(file, &last, false)? else {
        return Ok(false);
    };
    Ok(matches!(told, [one] if one.physical == extent.physical && one.holds() == Holds::Encoded))
}

/// Where two maps differ within `window`. `sure` is asked of encoded extents that look the same.
pub(super) fn differences(
    mut old: &[Extent],
    mut new: &[Extent],
    window: Range<u64>,
    sure: &mut dyn FnMut(&Extent) -> Result<bool>,
    found: &mut dyn FnMut(Range<u64>),
) -> Result<()> {
    let mut at = window.start;
    while at < window.end {
        let (one, one_end) = covering(&mut old, at);
        let (other, other_end) = covering(&mut new, at);
        let until = one_end.min(other_end).min(window.end);
        if !same(one, other, at, sure)? {
            found(at..until);
        }
        at = until;
    }
    Ok(())
}

/// The extent at an offset, if it holds more than zeros, and where that answer ends.
fn covering<'a>(extents: &mut &'a [Extent], at: u64) -> (Option<&'a Extent>, u64) {
    while let [first, rest @ ..] = *extents {
        if first.end() <= at {
            *extents = rest;
        } else if first.logical > at {
            return (None, first.logical);
        } else {
            let holds = (first.holds() != Holds::Zeros).then_some(first);
            return (holds, first.end());
        }
    }
    (None, u64::MAX)
}

fn same(
    old: Option<&Extent>,
    new: Option<&Extent>,
    at: u64,
    sure: &mut dyn FnMut(&Extent) -> Result<bool>,
) -> Result<bool> {
    let (old, new) = match (old, new) {
        (None, None) => return Ok(true),
        (Some(old), Some(new)) => (old, new),
        _ => return Ok(false),
    };
    let place = |extent: &Extent| extent.physical.checked_add(at - extent.logical);
    Ok(match (old.holds(), new.holds()) {
        (Holds::Bytes, Holds::Bytes) => place(old).is_some() && place(old) == place(new),
        (Holds::Encoded, Holds::Encoded) => {
            let triple = |extent: &Extent| (extent.logical, extent.physical, extent.length);
            triple(old) == triple(new) && sure(old)?
        }
        _ => false,
    })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "ranges are what is found")]
mod tests {
    use super::super::Joined;
    use super::*;

    const KIB: u64 = 1 << 10;

    /// What two maps say of the first MiB, with encoded extents that are what they look like or not.
    fn found(old: &[Extent], new: &[Extent], one: bool) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut found = |range| ranges.push(range);
        let mut joined = Joined::new(1 << 20, &mut found);
        let add = &mut |range| joined.add(range);
        differences(old, new, 0..1 << 20, &mut |_| Ok(one), add).unwrap();
        joined.end();
        ranges
    }

    fn extent(logical: u64, physical: u64, length: u64, holds: Holds) -> Extent {
        Extent::of(logical * KIB, physical * KIB, length * KIB, holds)
    }

    #[test]
    fn only_what_lies_at_one_place_is_equal() {
        use Holds::{Bytes, Encoded, Untold, Zeros};
        let one = extent(64, 1024, 128, Bytes);
        for (other, changed) in [
            (one, vec![]),
            (extent(64, 1028, 128, Bytes), vec![64..192]),
            // Split, or with less of it: byte by byte at its place.
            (extent(64, 1024, 64, Bytes), vec![128..192]),
            (extent(128, 1088, 64, Bytes), vec![64..128]),
            (extent(128, 1024, 64, Bytes), vec![64..192]),
            (extent(64, 1024, 128, Zeros), vec![64..192]),
            (extent(64, 1024, 128, Encoded), vec![64..192]),
            (extent(64, 1024, 128, Untold), vec![64..192]),
        ] {
            let changed: Vec<_> = changed
                .into_iter()
                .map(|r| r.start * KIB..r.end * KIB)
                .collect();
            assert_eq!(found(&[one], &[other], true), changed, "{other:?}");
            assert_eq!(found(&[other], &[one], true), changed, "{other:?}");
        }
        let nowhere = [extent(0, 0, 64, Untold)];
        assert_eq!(found(&nowhere, &nowhere, true), [0..64 * KIB]);
        let zeros = [extent(0, 0, 64, Zeros)];
        assert_eq!(found(&zeros, &[], true), []);
    }

    #[test]
    fn an_encoded_extent_is_equal_as_a_whole_or_not_at_all() {
        let one = extent(0, 1024, 128, Holds::Encoded);
        assert_eq!(found(&[one], &[one], true), []);
        assert_eq!(found(&[one], &[one], false), [0..128 * KIB]);
        for other in [
            extent(0, 1024, 64, Holds::Encoded),
            extent(64, 1024, 64, Holds::Encoded),
            extent(0, 1028, 128, Holds::Encoded),
        ] {
            assert_eq!(found(&[one], &[other], true), [0..128 * KIB], "{other:?}");
        }
    }
}
