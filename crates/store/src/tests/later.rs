//! Images that are ready before their SHA-512 is known.

use super::*;

impl Fixture {
    /// Seals bytes whose sum is left for later.
    fn seal_early(&self, bytes: &[u8]) -> SealedImage {
        let ingest = self.store.begin(&self.id, Cancel::never()).unwrap();
        let mut ingest = ingest.without_checksum();
        ingest.write(bytes).unwrap();
        let received = ingest.finish().unwrap();
        self.store
            .seal(&self.id, received, &Facts::default())
            .unwrap()
    }

    fn prove(&self, image: &SealedImage) -> crate::Result<SealedImage> {
        let cancel = Cancel::never();
        let sum = self.store.prove(image, Reading::silent(&cancel))?;
        self.store.proven(image, sum)
    }
}

#[test]
fn row_530_an_image_is_ready_before_its_sum_and_gets_it() {
    let fixture = fixture();
    fixture.seal_early(&bytes());
    // A start in between finds it ready, with digests for all of it, and without a sum.
    let early = fixture.ready();
    assert!(early.seal.checksum_unproven);
    assert_eq!(early.summed().unwrap(), None);
    assert!(matches!(early.checksum(), Err(Error::Unsummed(_))));
    let manifest = fixture.store.manifest(&early).unwrap().unwrap();
    assert_eq!((manifest.checksum, manifest.chunks.len()), (None, 3));
    // An earlier version leaves it alone: it would take it for damaged.
    assert_eq!(early.seal.version, 2);
    let proven = fixture.prove(&early).unwrap();
    assert_eq!(proven, fixture.ready());
    assert_eq!(proven.checksum().unwrap(), Sha512::of(&bytes()));
    assert_eq!(
        (proven.seal.version, proven.seal.checksum_unproven),
        (1, false)
    );
    let manifest = fixture.store.manifest(&proven).unwrap().unwrap();
    assert_eq!(manifest.checksum, Some(Sha512::of(&bytes())));
}

#[test]
fn row_531_what_was_changed_before_its_sum_was_known_is_damaged() {
    let fixture = fixture();
    let early = fixture.seal_early(&bytes());
    spoil(&fixture.backing(), 5);
    assert!(matches!(fixture.prove(&early), Err(Error::Damaged { .. })));
    let verified = fixture.store.verify(&early, &Cancel::never());
    assert!(matches!(verified, Err(Error::Damaged { .. })));
    // Touched alone, it is the same image, and its sum is still to come.
    let file = File::options().write(true).open(fixture.backing()).unwrap();
    file.write_all_at(&[7], 5).unwrap();
    let again = fixture.store.verify(&early, &Cancel::never()).unwrap();
    assert_eq!(again.summed().unwrap(), None);
    fs::remove_file(fixture.store.paths(&fixture.id).chunks).unwrap();
    let verified = fixture.store.verify(&early, &Cancel::never());
    assert!(matches!(verified, Err(Error::Damaged { .. })));
    // Untouched, nothing but its own bytes says what it is.
    assert_eq!(
        fixture.prove(&again).unwrap().checksum().unwrap(),
        Sha512::of(&bytes())
    );
}

#[test]
fn a_raw_image_of_an_odd_size_is_padded_without_a_sum() {
    let fixture = fixture();
    let odd = &bytes()[..(2 << 20) + 100];
    let early = fixture.seal_early(odd);
    let mut padded = odd.to_vec();
    padded.resize((2 << 20) + 512, 0);
    assert_eq!(early.sidecar.size, padded.len() as u64);
    let proven = fixture.prove(&early).unwrap();
    assert_eq!(proven.checksum().unwrap(), Sha512::of(&padded));
}

#[test]
fn a_raw_form_that_is_made_before_the_sum_stays_that_of_the_image() {
    let fixture = fixture();
    let mut early = fixture.seal_early(&bytes());
    // As if it were in pieces: then it is not its own raw form.
    early.seal.extents = 10_000;
    let cancel = Cancel::never();
    let raw = fixture.store.make_raw_form(&early, &cancel).unwrap();
    let proven = fixture.prove(&early).unwrap();
    if fixture.store.disk().reflink() {
        assert_eq!(fixture.store.raw_form(&proven).unwrap(), Some(raw));
    }
}

#[test]
fn a_whole_file_is_digested_alone_when_its_sum_may_wait() {
    let fixture = fixture();
    let cancel = Cancel::never();
    let received =
        fixture
            .store
            .receive_file(&fixture.id, true, Reading::silent(&cancel), |file| {
                file.write_all_at(&bytes(), 0).unwrap();
                Ok::<_, Error>(())
            });
    let sealed = fixture
        .store
        .seal(&fixture.id, received.unwrap(), &Facts::default())
        .unwrap();
    assert_eq!(sealed.summed().unwrap(), None);
    assert_eq!(
        fixture.prove(&sealed).unwrap().checksum().unwrap(),
        Sha512::of(&bytes())
    );
}
