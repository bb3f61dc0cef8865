use proptest::prelude::*;

use super::*;

fn lease(holder: &str, renewed: &str) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(15),
        renew_time: Some(renewed.to_owned()),
        ..LeaseSpec::default()
    }
}

fn clock() -> String {
    "2026-11-29T00:00:00.000000Z".to_owned()
}

#[test]
fn a_lease_that_nobody_has_is_taken_at_once() {
    let mut a = Election::new("a".to_owned());
    let now = Instant::now();
    let taken = a.turn(None, now, clock()).unwrap();
    assert_eq!(taken.holder_identity.as_deref(), Some("a"));
    assert_eq!(taken.lease_transitions, Some(1));
    let renewed = a.turn(Some(&taken), now, clock()).unwrap();
    assert_eq!(renewed.lease_transitions, Some(1), "renewed, not taken");
    let released = a.release(&renewed).unwrap();
    let mut b = Election::new("b".to_owned());
    assert_eq!(b.release(&renewed), None);
    let taken = b.turn(Some(&released), now, clock()).unwrap();
    assert_eq!(taken.lease_transitions, Some(2));
}

#[test]
fn a_lease_of_another_is_taken_when_it_stood_still_for_its_time_by_our_clock() {
    let mut b = Election::new("b".to_owned());
    let began = Instant::now();
    // What it says of the time does not matter.
    let first = lease("a", "1970-01-01T00:00:00.000000Z");
    let after = |seconds| began + Duration::from_secs(seconds);
    assert_eq!(b.turn(Some(&first), after(0), clock()), None);
    assert_eq!(b.turn(Some(&first), after(14), clock()), None);
    let renewed = lease("a", "1970-01-01T00:00:01.000000Z");
    assert_eq!(b.turn(Some(&renewed), after(14), clock()), None);
    assert_eq!(b.turn(Some(&renewed), after(28), clock()), None);
    assert!(b.turn(Some(&renewed), after(29), clock()).is_some());
}

#[test]
fn a_longer_lease_is_waited_for_and_one_without_end_is_not() {
    for (said, waits) in [(60, 60), (i32::MAX, 300), (1, 15), (-5, 15)] {
        let mut b = Election::new("b".to_owned());
        let began = Instant::now();
        let found = LeaseSpec {
            lease_duration_seconds: Some(said),
            ..lease("a", "")
        };
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(b.turn(Some(&found), began, clock()), None);
        assert_eq!(b.turn(Some(&found), after(waits - 1), clock()), None);
        assert!(
            b.turn(Some(&found), after(waits), clock()).is_some(),
            "{said}"
        );
    }
}

/// What one candidate does in the model.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Looks at the Lease and begins to write.
    Look(usize),
    /// What it began to write arrives, and it hears of it or not.
    Write(usize, bool),
    /// Time passes.
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..3_usize).prop_map(Act::Look),
        (0..3_usize, any::<bool>()).prop_map(|(who, hears)| Act::Write(who, hears)),
        (1..9_u64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..200)
}

proptest! {
    /// Reads and writes are apart by any time, answers are lost, and nobody compares clocks.
    #[test]
    fn never_two_lead(acts in acts()) {
        let start = Instant::now();
        let mut now = start;
        let names = ["a", "b", "c"];
        let mut elections = names.map(|name| Election::new(name.to_owned()));
        let mut writes: [Option<(u64, LeaseSpec, Instant)>; 3] = [None, None, None];
        let mut until: [Option<Instant>; 3] = [None; 3];
        let (mut stored, mut version) = (None::<LeaseSpec>, 0);
        for act in acts {
            match act {
                Act::Wait(seconds) => now += Duration::from_secs(seconds),
                Act::Look(who) => {
                    let clock = format!("{:?}", now.duration_since(start));
                    let spec = elections[who].turn(stored.as_ref(), now, clock);
                    writes[who] = spec.map(|spec| (version, spec, now));
                }
                Act::Write(who, hears) => {
                    if let Some((of, spec, began)) = writes[who].take()
                        && of == version
                    {
                        version += 1;
                        stored = Some(spec);
                        if hears {
                            until[who] = Some(began + DEADLINE);
                        }
                    }
                }
            }
            let leads = until.iter().filter(|until| until.is_some_and(|until| now < until));
            prop_assert!(leads.count() <= 1, "two lead at {:?}", now.duration_since(start));
        }
    }
}
