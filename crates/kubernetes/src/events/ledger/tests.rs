use super::*;

fn key(name: &str) -> Key {
    Key {
        regarding: Regarding::volume(name),
        level: Level::Warning,
        reason: "Degraded".to_owned(),
    }
}

#[test]
fn what_is_said_in_each_round_is_written_once_a_minute() {
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    let mut ledger = Ledger::new(now);
    let key = key("v");
    assert_eq!(ledger.say(&key, "1 of 3", now), Entry::New);
    // Two rounds at once do not make two.
    assert_eq!(ledger.say(&key, "1 of 3", now), Entry::Quiet);
    ledger.made(&key, "v.1");
    assert_eq!(ledger.say(&key, "1 of 3", after(59)), Entry::Quiet);
    let counted = Entry::Count("v.1".to_owned(), 4);
    assert_eq!(ledger.say(&key, "1 of 3", after(60)), counted);
    // Other words are news.
    let counted = Entry::Count("v.1".to_owned(), 5);
    assert_eq!(ledger.say(&key, "2 of 3", after(61)), counted);
    // After a silence of ten minutes it is another Event.
    assert_eq!(
        ledger.say(&key, "2 of 3", after(660)),
        Entry::Count("v.1".to_owned(), 6)
    );
    assert_eq!(ledger.say(&key, "2 of 3", after(1260)), Entry::New);
    ledger.gone(&key, false);
    assert_eq!(ledger.say(&key, "2 of 3", after(1261)), Entry::New);
}

#[test]
fn what_is_not_written_of_an_object_that_there_is_not_takes_nothing_from_others() {
    let now = Instant::now();
    let mut ledger = Ledger::new(now);
    let key = key("v");
    for _ in 0..100 {
        assert_eq!(ledger.say(&key, "", now), Entry::New);
        ledger.gone(&key, true);
    }
    for _ in 0..BURST {
        assert_eq!(ledger.say(&key, "", now), Entry::New);
        ledger.gone(&key, false);
    }
    assert_eq!(ledger.say(&key, "", now), Entry::Quiet);
}

#[test]
fn a_storm_is_cut_off_and_what_is_remembered_has_a_bound() {
    let now = Instant::now();
    let mut ledger = Ledger::new(now);
    let said = |n: usize| key(&format!("v{n}"));
    let written = (0..100).filter(|n| ledger.say(&said(*n), "", now) == Entry::New);
    assert_eq!(written.count(), 25);
    let later = now + Duration::from_secs(3);
    let written = (100..200).filter(|n| ledger.say(&said(*n), "", later) == Entry::New);
    assert_eq!(written.count(), 3);
    for n in 0..2000 {
        let at = now + Duration::from_secs(60 + u64::try_from(n).unwrap());
        assert_eq!(ledger.say(&said(1000 + n), "", at), Entry::New, "{n}");
        assert!(ledger.series.len() <= SERIES_MAX);
    }
}
