//! One image and many disks that fetch it at once, each behind its own link.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::storage::v1 as pb;

use crate::manager::{Options, from_file, from_peers, init_disk};
use crate::netns::Network;
use crate::noise::noise;
use crate::{Manager, Sandbox, web};

/// The name of the image.
pub const IMAGE: &str = "spread";
const UUID: &str = "0123abcd";
/// Where the source tells its metrics, in its own namespace.
const METRICS: u16 = 9100;

/// A source that has the image, and receivers.
#[derive(Debug)]
pub struct FanOut {
    // Dropped in this order: who runs in a namespace ends before it goes.
    source: Manager,
    receivers: Vec<Manager>,
    network: Network,
    /// Bytes of the image.
    pub size: u64,
    _sandbox: Sandbox,
}

impl FanOut {
    /// Links of `megabits` per second, and an image of so many MiB of noise.
    pub fn new(name: &str, receivers: u8, megabits: u32, mebibytes: usize) -> Self {
        let sandbox = Sandbox::new(name);
        let network = Network::new(receivers + 1, megabits);
        let import = sandbox.make_dir("import");
        let mut managers: Vec<Manager> = network
            .machines()
            .iter()
            .map(|machine| {
                let disk = sandbox.make_dir(&machine.namespace);
                init_disk(&disk);
                let metrics = SocketAddr::from((machine.address, METRICS));
                let mut options = Options::new(&disk)
                    .on(machine)
                    .with("--import-dir", &import)
                    .with("--metrics-listen", metrics.to_string());
                options.name.clone_from(&machine.namespace);
                Manager::start(&sandbox, &options)
            })
            .collect();
        let source = managers.remove(0);
        let path = sandbox.write(
            format!("import/{IMAGE}"),
            noise(u64::from(megabits), mebibytes << 20),
        );
        let mut made = from_file(IMAGE, &path);
        made.uuid = UUID.into();
        let made = source
            .make_image(made)
            .expect("ask the source for the image");
        assert_eq!(made.progress, 100, "{made:?}");
        Self {
            source,
            receivers: managers,
            network,
            size: made.size,
            _sandbox: sandbox,
        }
    }

    /// The image at the source.
    pub fn original(&self) -> pb::BackingImage {
        self.source.image(IMAGE).expect("the source has the image")
    }

    /// Copies the image to the first `count` receivers at once: what they have then, and how long it
    /// took.
    pub fn spread(&self, count: usize) -> (Vec<pb::BackingImage>, Duration) {
        let receivers = &self.receivers[..count];
        let start = Instant::now();
        for receiver in receivers {
            let request = from_peers(IMAGE, UUID, &[self.source.sync_address()]);
            receiver.create_image(request).expect("ask for a copy");
        }
        let wait = |receiver: &Manager| receiver.wait_image(IMAGE).expect("wait for a copy");
        let copies = receivers.iter().map(wait).collect();
        (copies, start.elapsed())
    }

    /// Removes the copies.
    pub fn forget(&self, count: usize) {
        for receiver in &self.receivers[..count] {
            receiver.delete_image(IMAGE).expect("delete a copy");
        }
    }

    /// Bytes of the image that the source has sent so far, to whomever.
    pub fn sent_by_source(&self) -> u64 {
        let source = &self.network.machines()[0];
        let url = format!("http://{}:{METRICS}/metrics", source.address);
        let (_, text) = web::get(&url).expect("ask the source for its metrics");
        let text = String::from_utf8_lossy(&text);
        let line = text
            .lines()
            .find(|line| line.starts_with("longhorn_backing_image_sync_sent_bytes_total"));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no count of sent bytes in {text}"))
    }
}
