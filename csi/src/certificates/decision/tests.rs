use std::time::Duration;

use trust::authority::{AUTHORITY_LIFE, SUCCESSION};

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn entries(lineage: &Lineage) -> Entries {
    let key = lineage.newest.key_pem();
    let previous = lineage.previous.as_ref();
    let previous_key = previous.map(Authority::key_pem);
    Entries::of([
        (CERTIFICATE, lineage.newest.certificate_pem()),
        (KEY, &key),
        (
            PREVIOUS_CERTIFICATE,
            previous.map_or("", Authority::certificate_pem),
        ),
        (PREVIOUS_KEY, previous_key.as_ref().map_or("", |key| key)),
    ])
}

fn good(entries: &Entries, now: SystemTime) -> Lineage {
    match found(entries, now) {
        Found::Good(lineage) => lineage,
        other => panic!("{other:?}"),
    }
}

fn trouble(found: Found, held: Option<&Lineage>, owned: bool) -> String {
    match decide(found, held, owned, SystemTime::now()).unwrap() {
        Step::Trouble(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_stored_is_what_is_read() {
    let now = SystemTime::now();
    let lineage = Lineage::create(now).unwrap().succeed(now + DAY).unwrap();
    let texts = Texts::of(&lineage);
    let stored = entries(&lineage);
    for (key, value) in texts.changes() {
        assert_eq!(stored.get(key), value, "{key}");
    }
    let read = good(&stored, now);
    assert!(is_same(&read, &lineage));
    let previous = read.previous.unwrap();
    assert_eq!(
        previous.certificate_pem(),
        lineage.previous.unwrap().certificate_pem()
    );
    // One that has expired is of no use.
    let later = good(&stored, previous.not_after() + DAY);
    assert!(later.previous.is_none());
    let step = decide(Found::Good(read_again(&stored)), Some(&later), true, now);
    assert!(matches!(step.unwrap(), Step::GoOn));
}

fn read_again(stored: &Entries) -> Lineage {
    good(stored, SystemTime::now())
}

#[test]
fn row_230_a_lost_secret_is_written_back_or_made_anew_and_a_damaged_one_is_left() {
    let now = SystemTime::now();
    let held = Lineage::create(now).unwrap();
    let Step::Store(back) = decide(Found::Empty, Some(&held), true, now).unwrap() else {
        panic!("what is in memory is written back");
    };
    assert!(is_same(&back, &held));
    let Step::Store(new) = decide(Found::Empty, None, true, now).unwrap() else {
        panic!("the first controller makes an authority");
    };
    assert!(!is_same(&new, &held));
    for held in [None, Some(&held)] {
        let missing = trouble(Found::Missing, held, true);
        assert!(missing.contains("apply the manifests"), "{missing}");
        let damaged = trouble(Found::Damaged("the key is gone".into()), held, true);
        assert!(
            damaged.contains("the key is gone") && damaged.contains("restore"),
            "{damaged}"
        );
        for found in [Found::Missing, Found::Empty] {
            let foreign = trouble(found, held, false);
            assert!(foreign.contains("cert-manager"), "{foreign}");
        }
    }
}

#[test]
fn row_230_each_way_to_damage_a_secret_is_told() {
    let now = SystemTime::now();
    let (one, two) = (Lineage::create(now).unwrap(), Lineage::create(now).unwrap());
    let (certificate, key) = (one.newest.certificate_pem(), one.newest.key_pem());
    let other = two.newest.key_pem();
    for (certificate, key, words) in [
        (certificate, "", "tls.key is missing"),
        ("", &**key, "tls.crt is missing"),
        (certificate, &**other, "not the key of the certificate"),
        ("nonsense", &**key, "no PEM block"),
        (certificate, "nonsense", "PKCS #8"),
        (certificate, certificate, "private key"),
    ] {
        let found = found(&Entries::of([(CERTIFICATE, certificate), (KEY, key)]), now);
        let Found::Damaged(why) = found else {
            panic!("{words}: {found:?}");
        };
        assert!(why.contains(words), "{words}: {why}");
        assert!(
            !why.contains("BEGIN CERT") && !why.contains("nonsense"),
            "{why}"
        );
    }
    assert!(matches!(found(&Entries::default(), now), Found::Empty));
    let previous = [
        (CERTIFICATE, certificate),
        (KEY, &**key),
        (PREVIOUS_KEY, "x"),
    ];
    assert!(good(&Entries::of(previous), now).previous.is_none());
}

#[test]
fn the_next_authority_is_made_in_time_and_only_where_it_is_ours() {
    let now = SystemTime::now();
    let stored = entries(&Lineage::create(now).unwrap());
    let due = now + AUTHORITY_LIFE - SUCCESSION + DAY;
    let before = due - 2 * DAY;
    let held = good(&stored, now);
    let step = |owned, at| decide(Found::Good(good(&stored, at)), Some(&held), owned, at).unwrap();
    assert!(matches!(step(true, before), Step::GoOn));
    let Step::Store(next) = step(true, due) else {
        panic!("the next one is made");
    };
    assert!(is_same(
        &Lineage {
            newest: next.previous.unwrap(),
            previous: None
        },
        &held
    ));
    assert!(matches!(step(false, due), Step::GoOn));
}

#[test]
fn what_somebody_else_stored_is_taken_over() {
    let now = SystemTime::now();
    let (held, stored) = (Lineage::create(now).unwrap(), Lineage::create(now).unwrap());
    let stored = entries(&stored);
    let take = |held, owned| match decide(Found::Good(good(&stored, now)), held, owned, now) {
        Ok(Step::Take(lineage)) => lineage,
        other => panic!("{other:?}"),
    };
    assert!(take(Some(&held), true).previous.is_none());
    assert!(take(None, false).previous.is_none());
    // Who signed until now goes on until the new one is known everywhere.
    let previous = take(Some(&held), false).previous.unwrap();
    assert_eq!(previous.certificate_pem(), held.newest.certificate_pem());
}
