//! Eight disks want one image, each behind a link of its own: they get it from each other.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on panics"
)]

use std::fs;
use std::time::{Duration, Instant};

use e2e::manager::{Options, from_file, init_disk};
use e2e::netns::Network;
use e2e::{Manager, Need, Sandbox, needs};
use proto::storage::v1 as pb;

const IMAGE: &str = "spread";
const UUID: &str = "0123abcd";
const RECEIVERS: u8 = 8;
/// Of each link: slow enough that eight managers on one machine have little to do.
const MEGABITS: u32 = 160;
const SIZE: usize = 48 << 20;

fn noise() -> Vec<u8> {
    let mut state = 77_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next)
        .take(SIZE / 8)
        .flatten()
        .collect()
}

fn spread(source: &Manager, receivers: &[Manager]) -> Duration {
    let peers = pb::PeersSource {
        addresses: vec![source.sync_address().to_string()],
        size: 0,
    };
    let request = pb::CreateBackingImageRequest {
        name: IMAGE.into(),
        uuid: UUID.into(),
        source: Some(pb::Source {
            source: Some(pb::source::Source::Peers(peers)),
        }),
        ..Default::default()
    };
    let start = Instant::now();
    for receiver in receivers {
        receiver.create_image(request.clone()).unwrap();
    }
    for receiver in receivers {
        let image = receiver.wait_image(IMAGE).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
    }
    let took = start.elapsed();
    for receiver in receivers {
        receiver.delete_image(IMAGE).unwrap();
    }
    took
}

#[test]
fn eight_disks_get_an_image_in_little_more_than_the_time_of_one() {
    needs!(Need::Root, Need::Tool("ip"), Need::Tool("tc"));
    let sandbox = Sandbox::new("fan-out");
    let network = Network::new(RECEIVERS + 1, MEGABITS);
    let import = sandbox.make_dir("import");
    let managers: Vec<Manager> = network
        .machines()
        .iter()
        .map(|machine| {
            let disk = sandbox.make_dir(&machine.namespace);
            init_disk(&disk);
            let mut options = Options::new(&disk)
                .on(machine)
                .with("--import-dir", &import);
            options.name.clone_from(&machine.namespace);
            Manager::start(&sandbox, &options)
        })
        .collect();
    let (source, receivers) = managers.split_first().unwrap();
    let path = import.join(IMAGE);
    fs::File::create(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &noise()))
        .unwrap();
    let mut made = from_file(IMAGE, &path);
    made.uuid = UUID.into();
    assert_eq!(source.make_image(made).unwrap().progress, 100);
    let one = spread(source, &receivers[..1]);
    let wire = Duration::from_secs_f64((SIZE * 8) as f64 / f64::from(MEGABITS) / 1e6);
    assert!(one > wire * 9 / 10, "the links are not limited: {one:?}");
    // What else the machine does is not what is measured: the better of two.
    let all = spread(source, receivers).min(spread(source, receivers));
    println!("one: {one:?}, eight: {all:?}");
    // The budget is 2; the benchmark holds it to that on a quiet machine.
    assert!(all < one * 5 / 2, "one takes {one:?}, eight take {all:?}");
}
