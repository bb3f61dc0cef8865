//! Many volumes through one plugin: whether anything grows or gets slower.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use proto::csi::v1 as pb;

use crate::csi::{Claim, Plugin, claim};
use crate::{Process, block_on};

const MIB: u64 = 1 << 20;
/// Entries asked for in one page of a listing.
const PAGE: i32 = 50;

/// What each call took, in the order of the calls.
#[derive(Debug, Default)]
pub struct Times {
    /// CreateVolume.
    pub create: Vec<Duration>,
    /// ControllerPublishVolume, NodeStageVolume and NodePublishVolume.
    pub publish: Vec<Duration>,
    /// The way back of those.
    pub unpublish: Vec<Duration>,
    /// DeleteVolume.
    pub delete: Vec<Duration>,
    /// ListVolumes of a page, while all volumes are there.
    pub list: Vec<Duration>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes of resident memory.
    pub memory: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

impl Held {
    /// By this process now.
    pub fn by(process: &Process) -> Self {
        let listed = fs::read_dir(format!("/proc/{}/fd", process.id()));
        Self {
            memory: process.memory().1,
            descriptors: listed.map_or(0, Iterator::count),
        }
    }
}

/// Makes `count` blank block volumes, lists them all, lets a pod use each, and deletes them. Panics when
/// a call fails, or when the listing does not show each volume once.
pub fn churn(plugin: &Plugin, count: usize) -> Times {
    let mut times = Times::default();
    let mut claims: Vec<Claim> = Vec::new();
    for number in 0..count {
        let mut request = claim(&format!("churn-{number:04}"), 4 * MIB, &[]);
        request.volume_capabilities = vec![crate::csi::block()];
        claims.push(timed(&mut times.create, || plugin.provision(&request)));
    }
    list_all(plugin, count, &mut times.list);
    for claim in &mut claims {
        timed(&mut times.publish, || plugin.run_pod(claim, "pod"));
        timed(&mut times.unpublish, || plugin.end_pod(claim, "pod"));
    }
    for claim in &claims {
        timed(&mut times.delete, || plugin.delete(claim));
    }
    list_all(plugin, 0, &mut Vec::new());
    times
}

fn timed<T>(times: &mut Vec<Duration>, call: impl FnOnce() -> Result<T, tonic::Status>) -> T {
    let start = Instant::now();
    let done = call().unwrap_or_else(|status| panic!("{status}"));
    times.push(start.elapsed());
    done
}

fn list_all(plugin: &Plugin, expected: usize, times: &mut Vec<Duration>) {
    let mut seen = HashMap::new();
    let mut starting_token = String::new();
    loop {
        let request = pb::ListVolumesRequest {
            max_entries: PAGE,
            starting_token,
        };
        let reply = timed(times, || {
            block_on(plugin.controller().list_volumes(request))
        });
        let reply = reply.into_inner();
        for entry in reply.entries {
            let volume = entry.volume.expect("an entry has a volume");
            *seen.entry(volume.volume_id).or_insert(0) += 1;
        }
        starting_token = reply.next_token;
        if starting_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), expected, "every volume is listed");
    assert!(seen.values().all(|count| *count == 1), "and once");
}

/// The value below which this share of the durations lies.
pub fn percentile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small count"
    )]
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
