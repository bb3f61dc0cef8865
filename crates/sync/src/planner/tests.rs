//! The plan, played by hand and by proptest.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn address(n: u32) -> PeerAddress {
    format!("10.0.0.{n}:8001").parse().unwrap()
}

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn planner(count: u32, peers: u32) -> Planner {
    let mut planner = Planner::new(Bits::all(count), Tuning::default(), 1);
    for n in 0..peers {
        let (address, given) = (address(n), n == 0);
        planner.on(Event::Found { address, given }, Duration::ZERO);
    }
    planner
}

fn has_all(planner: &mut Planner, peer: PeerId, now: Duration) {
    let have = Bits::all(planner.count);
    planner.on(Event::Have { peer, have }, now);
}

fn fetches(actions: &[Action]) -> Vec<(RequestId, PeerId, Range<u32>)> {
    let fetch = |action: &Action| match action {
        Action::Fetch {
            request,
            peer,
            chunks,
        } => Some((*request, *peer, chunks.clone())),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

fn lost() -> Fault {
    Fault {
        weight: Weight::Lost,
        why: "cut".to_owned(),
    }
}

fn arrive(planner: &mut Planner, request: RequestId, chunks: Range<u32>, now: Duration) {
    for index in chunks {
        planner.on(Event::Arrived { request, index }, now);
    }
    let fault = None;
    planner.on(Event::Ended { request, fault }, now);
}

#[test]
fn one_peer_sends_all_in_order_and_in_growing_pieces() {
    let mut planner = planner(400, 1);
    assert_eq!(planner.plan(Duration::ZERO), [Action::AskHave { peer: 0 }]);
    has_all(&mut planner, 0, Duration::ZERO);
    let mut order = Vec::new();
    let mut longest = 0;
    let mut waiting = fetches(&planner.plan(Duration::ZERO));
    assert_eq!(waiting.len(), 4, "several requests in flight");
    while !waiting.is_empty() {
        let (request, _, chunks) = waiting.remove(0);
        longest = longest.max(chunks.len());
        order.extend(chunks.clone());
        arrive(&mut planner, request, chunks, second(1));
        waiting.extend(fetches(&planner.plan(second(1))));
    }
    assert_eq!(planner.outlook(second(1)), Outlook::Done);
    assert_eq!(order, (0..400).collect::<Vec<_>>());
    assert_eq!(longest, 8);
}

#[test]
fn what_no_other_receiver_has_is_taken_from_the_source() {
    let mut planner = planner(100, 2);
    planner.plan(Duration::ZERO);
    has_all(&mut planner, 0, Duration::ZERO);
    let half = Bits::of(100, 0..50);
    planner.on(
        Event::Have {
            peer: 1,
            have: half,
        },
        Duration::ZERO,
    );
    let asked = fetches(&planner.plan(Duration::ZERO));
    assert!(asked.iter().any(|(_, peer, _)| *peer == 1));
    for (_, peer, chunks) in asked {
        assert_eq!(peer == 0, chunks.start >= 50, "{peer} {chunks:?}");
    }
}

#[test]
fn receivers_share_the_source_without_taking_anything_twice() {
    let mut taken = BTreeMap::new();
    for me in 1..=4 {
        let mut planner = planner(64, 1);
        for n in (1..=4).filter(|n| *n != me) {
            let (address, given) = (address(n), false);
            planner.on(Event::Found { address, given }, Duration::ZERO);
        }
        let own = address(me);
        planner.on(Event::Named { address: own }, Duration::ZERO);
        planner.plan(Duration::ZERO);
        has_all(&mut planner, 0, Duration::ZERO);
        let mut waiting = fetches(&planner.plan(Duration::ZERO));
        while let Some((request, peer, chunks)) = waiting.pop() {
            assert_eq!(peer, 0);
            for index in chunks.clone() {
                assert_eq!(taken.insert(index, me), None, "{index} is taken twice");
            }
            arrive(&mut planner, request, chunks, second(1));
            waiting.extend(fetches(&planner.plan(second(1))));
        }
        // The others do not come forward with their parts: then it is taken from the source too.
        assert_eq!(fetches(&planner.plan(second(1))), []);
        let late = fetches(&planner.plan(second(10)));
        assert!(late.iter().all(|(_, peer, _)| *peer == 0) && !late.is_empty());
    }
    assert_eq!(taken.len(), 64, "nothing is left out");
}

/// Row 47: what a cut request did not bring is asked again, from whoever is there.
#[test]
fn row_47_a_cut_request_is_taken_up_where_it_ended() {
    let mut planner = planner(100, 2);
    planner.plan(Duration::ZERO);
    has_all(&mut planner, 0, Duration::ZERO);
    has_all(&mut planner, 1, Duration::ZERO);
    let asked = fetches(&planner.plan(Duration::ZERO));
    let (request, peer, chunks) = asked[0].clone();
    let other = asked.iter().find(|(_, other, _)| *other != peer);
    let (done, _, run) = other.unwrap().clone();
    arrive(&mut planner, done, run, second(1));
    let fault = Some(lost());
    planner.on(Event::Ended { request, fault }, second(1));
    let again = fetches(&planner.plan(second(1)));
    let found = again.iter().find(|(_, _, run)| run.contains(&chunks.start));
    let (_, other, _) = found.expect("asked again at once");
    assert_ne!(*other, peer, "the one that failed gets a pause");
    let far = second(100);
    assert!(matches!(planner.outlook(far), Outlook::NoProgress(_)));
}

/// Row 51: a damaged chunk comes from elsewhere, and who sends damage is dropped.
#[test]
fn row_51_who_sends_damage_again_and_again_is_dropped() {
    let mut planner = planner(100, 2);
    planner.plan(Duration::ZERO);
    has_all(&mut planner, 0, Duration::ZERO);
    has_all(&mut planner, 1, Duration::ZERO);
    let mut strikes = 0;
    let mut bad = BTreeSet::new();
    let mut waiting = fetches(&planner.plan(Duration::ZERO));
    let mut dropped = false;
    while let Some((request, peer, chunks)) = waiting.pop() {
        if peer == 1 {
            strikes += 1;
            bad.insert(chunks.start);
            let index = chunks.start;
            planner.on(Event::Damaged { request, index }, second(1));
            let fault = None;
            planner.on(Event::Ended { request, fault }, second(1));
        } else {
            arrive(&mut planner, request, chunks, second(1));
        }
        let actions = planner.plan(second(1));
        for action in &actions {
            match action {
                Action::Check { peer, .. } => assert_eq!(*peer, 1),
                Action::Dropped { peer, .. } => {
                    assert_eq!(*peer, 1);
                    dropped = true;
                }
                Action::Abandon { request } => waiting.retain(|(id, _, _)| id != request),
                _ => {}
            }
        }
        waiting.extend(fetches(&actions));
    }
    assert!(dropped && strikes == 3, "{strikes}");
    assert_eq!(planner.outlook(second(1)), Outlook::Done);
}

/// Row 49: when the only copy of a chunk is bad the sync says so, and does not ask for ever.
#[test]
fn row_49_the_only_copy_being_bad_is_an_end() {
    let mut planner = planner(1, 1);
    planner.plan(Duration::ZERO);
    has_all(&mut planner, 0, Duration::ZERO);
    let (request, peer, _) = fetches(&planner.plan(Duration::ZERO))[0].clone();
    planner.on(Event::Damaged { request, index: 0 }, second(1));
    let fault = None;
    planner.on(Event::Ended { request, fault }, second(1));
    let actions = planner.plan(second(1));
    assert_eq!(actions, [Action::Check { peer, index: 0 }]);
    assert_eq!(planner.outlook(second(1)), Outlook::Going);
    let good = Some(false);
    let index = 0;
    planner.on(Event::Checked { peer, index, good }, second(1));
    assert_eq!(planner.plan(second(1)), []);
    assert!(matches!(planner.outlook(second(1)), Outlook::NoPeers(_)));
}

/// Row 96: who neither sends nor goes away does not hold up the end.
#[test]
fn row_96_a_chunk_that_waits_for_a_frozen_peer_comes_from_another() {
    let mut planner = planner(2, 2);
    planner.plan(Duration::ZERO);
    has_all(&mut planner, 0, Duration::ZERO);
    has_all(&mut planner, 1, Duration::ZERO);
    let asked = fetches(&planner.plan(Duration::ZERO));
    let frozen = asked
        .iter()
        .find(|(_, peer, _)| *peer == 0)
        .unwrap()
        .clone();
    let quick = asked
        .iter()
        .find(|(_, peer, _)| *peer == 1)
        .unwrap()
        .clone();
    arrive(&mut planner, quick.0, quick.2, second(1));
    assert_eq!(planner.plan(second(1)), []);
    let doubled = fetches(&planner.plan(second(3)));
    assert_eq!(doubled.len(), 1);
    assert_eq!((doubled[0].1, &doubled[0].2), (1, &frozen.2));
    arrive(&mut planner, doubled[0].0, frozen.2, second(3));
    let request = frozen.0;
    assert_eq!(planner.plan(second(3)), [Action::Abandon { request }]);
    assert_eq!(planner.outlook(second(3)), Outlook::Done);
}

#[test]
fn a_peer_that_was_only_heard_of_is_forgotten_and_comes_back() {
    let mut planner = planner(10, 2);
    let mut now = Duration::ZERO;
    let mut asked = 0;
    for _ in 0..200 {
        for action in planner.plan(now) {
            if action == (Action::AskHave { peer: 1 }) {
                asked += 1;
                let (peer, fault) = (1, lost());
                planner.on(Event::NoAnswer { peer, fault }, now);
            }
        }
        now += second(1);
    }
    assert_eq!(asked, 5);
    let (address, given) = (address(1), false);
    planner.on(Event::Found { address, given }, now);
    let actions = planner.plan(now + second(1));
    assert!(actions.contains(&Action::AskHave { peer: 1 }));
}

/// Plays a whole sync against peers that do what `script` says. Tells how many chunks were sent.
fn play(count: u32, holes: &[u32], peers: u32, script: &[u8], seed: u64) -> (u32, u64) {
    let mut missing = Bits::all(count);
    for hole in holes {
        missing.remove(*hole);
    }
    let wanted: Vec<u32> = missing.iter().collect();
    let mut planner = Planner::new(missing, Tuning::default(), seed);
    for n in 0..peers {
        let (address, given) = (address(n), true);
        planner.on(Event::Found { address, given }, Duration::ZERO);
    }
    let mut got: BTreeMap<u32, u32> = BTreeMap::new();
    let mut flying = Vec::new();
    let mut script = script.iter().copied();
    let mut now = Duration::ZERO;
    let mut trace = 0_u64;
    while planner.outlook(now) == Outlook::Going {
        now += Duration::from_millis(300);
        for action in planner.plan(now) {
            trace = trace.wrapping_mul(31).wrapping_add(match &action {
                Action::Fetch { peer, chunks, .. } => u64::from(chunks.start * 64 + *peer),
                _ => 1,
            });
            match action {
                Action::AskHave { peer } => has_all(&mut planner, peer, now),
                Action::Fetch {
                    request,
                    peer,
                    chunks,
                } => {
                    for index in chunks.clone() {
                        assert!(wanted.contains(&index), "a hole was asked for");
                    }
                    flying.push((request, peer, chunks));
                }
                Action::Abandon { request } => flying.retain(|(id, _, _)| *id != request),
                Action::Check { peer, index } => {
                    let good = Some(true);
                    planner.on(Event::Checked { peer, index, good }, now);
                }
                Action::Dropped { .. } => {}
            }
        }
        let Some((request, _, chunks)) = (!flying.is_empty()).then(|| flying.remove(0)) else {
            continue;
        };
        let mut fault = None;
        for index in chunks {
            match script.next().unwrap_or(0) {
                0..=199 => {
                    *got.entry(index).or_default() += 1;
                    planner.on(Event::Arrived { request, index }, now);
                }
                200..=205 => planner.on(Event::Damaged { request, index }, now),
                _ => {
                    fault = Some(lost());
                    break;
                }
            }
        }
        planner.on(Event::Ended { request, fault }, now);
    }
    if planner.outlook(now) == Outlook::Done {
        assert!(wanted.iter().all(|index| got.contains_key(index)));
    }
    (got.values().sum(), trace)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever fails in whatever order: it ends, complete or with a reason, and twice the same.
    #[test]
    fn every_sync_ends_and_ends_the_same(
        count in 1..60_u32,
        holes in prop::collection::vec(0..60_u32, 0..20),
        peers in 1..5_u32,
        script in prop::collection::vec(any::<u8>(), 0..150),
        seed in any::<u64>(),
    ) {
        let first = play(count, &holes, peers, &script, seed);
        prop_assert_eq!(first, play(count, &holes, peers, &script, seed));
    }
}

#[test]
fn without_faults_each_chunk_is_sent_once() {
    for peers in 1..5 {
        assert_eq!(play(300, &[3, 4, 299], peers, &[], 7).0, 297);
    }
}
