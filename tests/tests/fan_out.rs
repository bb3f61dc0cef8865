//! Eight disks fetch one image, each behind its own link, from each other. The benchmark
//! (`fan-out`) checks that this takes at most twice the time of one; this test checks its
//! preconditions.

use e2e::fan_out::FanOut;
use e2e::{Need, needs};

const RECEIVERS: u8 = 8;
/// Of each link: slow enough that nine managers on one machine have little to do.
const MEGABITS: u32 = 80;
const MEBIBYTES: usize = 32;

#[test]
fn eight_disks_get_an_image_of_which_the_source_sends_at_most_two() {
    needs!(Need::Root, Need::Tool("ip"), Need::Tool("tc"));
    let site = FanOut::new("fan-out", RECEIVERS, MEGABITS, MEBIBYTES);
    let (one, took_one) = site.spread(1);
    let sent_to_one = site.sent_by_source();
    assert_eq!(sent_to_one, site.size, "each byte once");
    site.forget(1);
    let (all, took_all) = site.spread(RECEIVERS.into());
    let sent_to_all = site.sent_by_source() - sent_to_one;
    println!(
        "one: {took_one:?}; eight: {took_all:?}, of {} bytes the source sent {sent_to_all}",
        site.size
    );
    let original = site.original();
    for copy in one.iter().chain(&all) {
        assert_eq!((copy.progress, copy.size), (100, site.size), "{copy:?}");
        assert_eq!(copy.current_checksum, original.current_checksum);
    }
    assert!(
        sent_to_all <= 2 * site.size,
        "{sent_to_all} bytes for eight copies of {}",
        site.size
    );
}
