//! The first step of a copy: a manifest that matches the request, from the first peer that has one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};
use types::report;

use super::Error;
use super::address::PeerAddress;
use super::ask::{Asked, Told};
use super::connect::Connect;
use super::protocol::{Geometry, Seal};
use super::swarm::Swarm;
use super::target::Wanted;
use chunks::Manifest;

/// Rounds after which peers that all say that they do not have the image are believed: some seconds.
const ROUNDS_MAX: u32 = 6;
/// The next peer is asked when the one before has not answered for so long.
const STAGGER: Duration = Duration::from_millis(300);

/// A manifest, and what came with it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) peer: PeerAddress,
    /// Taken by who opens the way in: large ones are in memory once.
    pub(super) manifest: Option<Manifest>,
    pub(super) geometry: Geometry,
    pub(super) seal: Seal,
    /// Others that have the image or are getting it.
    pub(super) others: Vec<PeerAddress>,
    /// Under which address they are told of us.
    pub(super) you: Option<PeerAddress>,
}

/// Asks the peers of one sync for its manifest.
pub(super) struct Finder<'a, C> {
    pub(super) swarm: &'a Swarm,
    pub(super) connector: &'a C,
}

impl<C: Connect> Finder<'_, C> {
    /// Asks the peers for the manifest, again and again for as long as there is patience. Seals in
    /// `lies` are refused.
    pub(super) async fn find(
        &self,
        wanted: &Wanted,
        lies: &BTreeSet<Seal>,
    ) -> Result<Found, Error> {
        let settings = self.swarm.settings();
        let deadline = Instant::now() + settings.tuning.patience;
        let mut pause = settings.tuning.pause_first;
        let mut peers: Vec<Arc<Asked<C>>> = wanted
            .peers
            .iter()
            .map(|peer| {
                let connector = self.connector.clone();
                Asked::new(
                    peer.clone(),
                    wanted.id.clone(),
                    connector,
                    settings.asking(),
                )
            })
            .collect();
        for round in 1.. {
            let mut asking: FuturesUnordered<_> = (0..)
                .zip(&peers)
                .map(|(n, peer)| async move {
                    sleep(STAGGER * n).await;
                    (peer.address(), self.look_at(peer, wanted, lies).await)
                })
                .collect();
            let mut errors = Vec::new();
            while let Some((peer, answer)) = asking.next().await {
                match answer {
                    Ok(found) => return Ok(found),
                    Err(error) => errors.push((peer.clone(), error)),
                }
            }
            drop(asking);
            let final_ones: Vec<_> = errors
                .iter()
                .filter(|(_, error)| is_final(error))
                .map(|(peer, _)| peer.clone())
                .collect();
            peers.retain(|peer| !final_ones.contains(peer.address()));
            let absent = |error: &Error| matches!(error, Error::NotThere { .. });
            let believed = round >= ROUNDS_MAX
                && errors
                    .iter()
                    .all(|(_, error)| is_final(error) || absent(error));
            if peers.is_empty() || believed || Instant::now() + pause > deadline {
                return Err(summary(errors));
            }
            sleep(pause).await;
            pause = (pause * 2).min(settings.tuning.pause_max);
        }
        unreachable!("the deadline comes first")
    }

    async fn look_at(
        &self,
        peer: &Arc<Asked<C>>,
        wanted: &Wanted,
        lies: &BTreeSet<Seal>,
    ) -> Result<Found, Error> {
        let (manifest, told) = peer.manifest(self.swarm.settings().chunk).await?;
        let other = |what: &str| Error::OtherImage {
            peer: peer.address().clone(),
            what: what.to_owned(),
        };
        if wanted.size.is_some_and(|size| size != manifest.size) {
            return Err(other("its size differs from the requested one"));
        }
        if wanted.expected.is_some() && wanted.expected != manifest.checksum {
            return Err(other("its SHA-512 differs from the requested one"));
        }
        if lies.contains(&told.seal) {
            return Err(other("its manifest was found to be false"));
        }
        let Told {
            geometry,
            seal,
            peers,
            you,
        } = told;
        Ok(Found {
            others: Swarm::acceptable(peers, peer.address()),
            peer: peer.address().clone(),
            manifest: Some(manifest),
            geometry,
            seal,
            you,
        })
    }
}

/// Whether asking again is of no use.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::Foreign(_)
            | Error::Refused { .. }
            | Error::Version { .. }
            | Error::OtherImage { .. }
            | Error::Broken { .. }
    )
}

/// One error for all: that of the only peer, or what each said.
fn summary(mut errors: Vec<(PeerAddress, Error)>) -> Error {
    if errors.len() == 1
        && let Some((_, error)) = errors.pop()
    {
        return error;
    }
    // What cannot get better is more to the point than who could not be reached.
    if errors.iter().all(|(_, error)| is_final(error))
        && let Some((_, error)) = errors.pop()
    {
        return error;
    }
    let said: Vec<String> = errors
        .iter()
        .take(4)
        .map(|(_, error)| report(error).to_string())
        .collect();
    Error::NoPeers {
        missing: 0,
        why: said.join("; "),
    }
}
