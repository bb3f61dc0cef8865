use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use chunks::is_zero;

/// Two whole chunks of data, two of zeros, and a short one that is half zeros.
fn bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..4 * CHUNK + 5000)
        .map(|i| u8::try_from(i % 251).unwrap() + 1)
        .collect();
    bytes[2 * CHUNK..4 * CHUNK].fill(0);
    bytes[4 * CHUNK + 2000..].fill(0);
    bytes
}

fn manifest(bytes: &[u8]) -> Manifest {
    Manifest {
        size: bytes.len() as u64,
        checksum: Some(Sha512::of(bytes)),
        chunks: bytes.chunks(CHUNK).map(Chunk::of).collect(),
    }
}

fn paths(dir: &Path) -> ImagePaths {
    let layout = super::super::layout::Layout::new(dir);
    let id = types::ImageId::new("img", "1").unwrap();
    let paths = layout.image(super::super::Place::Work, &id);
    fs::create_dir_all(&paths.dir).unwrap();
    paths
}

fn open(paths: &ImagePaths, known: Option<Manifest>) -> Assembly {
    Assembly::open(paths, bytes().len() as u64, known, Cancel::never()).unwrap()
}

/// Cuts at uneven places and shuffles, reproducibly.
fn shuffled(size: usize) -> Vec<std::ops::Range<usize>> {
    let mut cuts: Vec<_> = (0..size).step_by(70_001).chain([size]).collect();
    cuts.dedup();
    let mut pieces: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
    pieces.sort_by_key(|piece| blake3::hash(&piece.start.to_le_bytes()).as_bytes()[0]);
    pieces
}

#[test]
fn bytes_in_any_order_from_several_threads_give_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, bytes) = (paths(dir.path()), bytes());
    let assembly = open(&paths, None);
    let pieces = shuffled(bytes.len());
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let (assembly, bytes, pieces) = (&assembly, &bytes, &pieces);
            scope.spawn(move || {
                for piece in pieces.iter().skip(lane).step_by(4) {
                    if is_zero(&bytes[piece.clone()]) {
                        assembly
                            .hole(piece.start as u64, piece.len() as u64)
                            .unwrap();
                    } else {
                        assembly
                            .write_at(piece.start as u64, &bytes[piece.clone()])
                            .unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(assembly.received(), bytes.len() as u64);
    assert_eq!(assembly.missing(), [0; 0]);
    let received = assembly.finish().unwrap();
    assert_eq!(received.manifest, manifest(&bytes));
    assert_eq!(fs::read(&received.path).unwrap(), bytes);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&received.file.metadata().unwrap()) * 512;
    assert!(blocks <= 3 * CHUNK as u64, "{blocks} bytes on disk");
    drop((assembly, received));
    assert!(!paths.backing_tmp.exists());
}

#[test]
fn an_end_that_comes_too_early_says_how_much_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, bytes) = (paths(dir.path()), bytes());
    let assembly = open(&paths, None);
    assembly.write_at(0, &bytes[..CHUNK + 7]).unwrap();
    let missing = (bytes.len() - CHUNK - 7) as u64;
    assert!(matches!(assembly.finish(), Err(Error::Incomplete { missing: m, .. }) if m == missing));
    assert_eq!(assembly.missing(), [1, 2, 3, 4]);
    // It was only a question.
    assembly.write_at(CHUNK as u64, &bytes[CHUNK..]).unwrap();
    assembly.finish().unwrap();
}

/// Rows 51 and 52: doubled, contradicting and misplaced bytes.
#[test]
fn row_52_what_does_not_fit_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, bytes) = (paths(dir.path()), bytes());
    let size = bytes.len() as u64;
    let assembly = open(&paths, None);
    for (offset, length) in [(size, 1), (0, size + 1), (u64::MAX, 2), (size - 1, 2)] {
        assert!(matches!(
            assembly.hole(offset, length),
            Err(Error::NotOfImage(_))
        ));
    }
    assert!(assembly.write_at(size - 1, &[1, 2]).is_err());
    assert!(assembly.put_chunk(9, &bytes[..CHUNK]).is_err());
    assert!(assembly.put_chunk(0, &bytes[..7]).is_err());
    assert_eq!(assembly.received(), 0);
    assembly.write_at(100, &bytes[100..2 * CHUNK]).unwrap();
    assembly.write_at(0, &bytes[..2 * CHUNK]).unwrap();
    assembly.write_at(50, &bytes[50..CHUNK]).unwrap();
    assert!(matches!(
        assembly.write_at(5, &[0; 9]),
        Err(Error::NotOfImage(_))
    ));
    assert!(matches!(
        assembly.hole(0, CHUNK as u64),
        Err(Error::NotOfImage(_))
    ));
    assembly.hole(2 * CHUNK as u64, 2 * CHUNK as u64).unwrap();
    assembly
        .write_at(4 * CHUNK as u64, &bytes[4 * CHUNK..])
        .unwrap();
    assembly.hole(size - 1, 1).unwrap();
    assert_eq!(assembly.finish().unwrap().manifest, manifest(&bytes));
}

/// Row 51: a bad chunk is named and can be had again.
#[test]
fn row_51_a_chunk_that_is_not_the_known_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, bytes) = (paths(dir.path()), bytes());
    let assembly = open(&paths, Some(manifest(&bytes)));
    // Known holes need not come.
    assert_eq!(assembly.missing(), [0, 1, 4]);
    let mut bad = bytes[..CHUNK].to_vec();
    bad[77] ^= 1;
    assert!(matches!(
        assembly.put_chunk(0, &bad),
        Err(Error::ChunkMismatch { index: 0 })
    ));
    assert!(!assembly.has(0));
    // In two pieces, the second one wrong.
    assembly
        .write_at(CHUNK as u64, &bytes[CHUNK..CHUNK + 10])
        .unwrap();
    let zeros = vec![0; CHUNK - 10];
    assert!(matches!(
        assembly.write_at(CHUNK as u64 + 10, &zeros),
        Err(Error::ChunkMismatch { index: 1 })
    ));
    assert_eq!(assembly.received(), 2 * CHUNK as u64);
    for index in [0, 1, 4] {
        let start = index as usize * CHUNK;
        let end = (start + CHUNK).min(bytes.len());
        assembly.put_chunk(index, &bytes[start..end]).unwrap();
        assert_eq!(assembly.read_chunk(index).unwrap(), &bytes[start..end]);
    }
    assert_eq!(assembly.finish().unwrap().manifest, manifest(&bytes));
}

/// Row 47: what came before a cut is kept, and believed by its digests alone.
#[test]
fn row_47_an_interrupted_assembly_goes_on_from_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, bytes) = (paths(dir.path()), bytes());
    let known = manifest(&bytes);
    let first = open(&paths, Some(known.clone()));
    first.put_chunk(0, &bytes[..CHUNK]).unwrap();
    first.put_chunk(1, &bytes[CHUNK..2 * CHUNK]).unwrap();
    let second = Assembly::open(&paths, known.size, Some(known.clone()), Cancel::never());
    assert!(
        matches!(second, Err(Error::WorkFileBusy(_))),
        "it has one owner"
    );
    drop(first);
    // As a torn write leaves it, and one into a hole.
    let file = File::options().write(true).open(&paths.part).unwrap();
    file.write_all_at(b"x", CHUNK as u64 + 9).unwrap();
    file.write_all_at(b"x", 3 * CHUNK as u64).unwrap();
    drop(file);
    let again = Assembly::open(&paths, known.size, Some(known.clone()), Cancel::never()).unwrap();
    assert_eq!(again.missing(), [1, 3, 4]);
    again.hole(3 * CHUNK as u64, CHUNK as u64).unwrap();
    again.put_chunk(1, &bytes[CHUNK..2 * CHUNK]).unwrap();
    again.put_chunk(4, &bytes[4 * CHUNK..]).unwrap();
    let received = again.finish().unwrap();
    assert_eq!(fs::read(&received.path).unwrap(), bytes);
    drop((again, received));
    // Another manifest begins anew.
    let mut other = known;
    other.checksum = Some(Sha512::of(b"other"));
    let anew = open(&paths, Some(other));
    assert_eq!(anew.missing(), [0, 1, 4]);
}

/// A manifest whose checksum is not that of its chunks.
#[test]
fn row_53_a_manifest_that_contradicts_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, bytes) = (paths(dir.path()), bytes());
    let mut lie = manifest(&bytes);
    lie.checksum = Some(Sha512::of(b"other"));
    let assembly = open(&paths, Some(lie));
    assembly.write_at(0, &bytes).unwrap();
    assert!(matches!(assembly.finish(), Err(Error::Checksum { .. })));
    drop(assembly);
    assert!(!paths.part.exists());
}

#[test]
fn a_manifest_travels_as_bytes() {
    let manifest = manifest(&bytes());
    let sent = manifest.to_bytes();
    assert_eq!(Manifest::from_bytes(&sent), Some(manifest.clone()));
    assert_eq!(
        Some(sent.len() as u64),
        Manifest::encoded_len(manifest.size)
    );
    for cut in [0, 15, 79, sent.len() - 1] {
        assert_eq!(Manifest::from_bytes(&sent[..cut]), None);
    }
    let mut huge = sent.clone();
    huge[8..16].fill(0xff);
    assert_eq!(Manifest::from_bytes(&huge), None);
}

/// A link that is faster than the hash is not held up by it. A sum that a manifest does not tell is waited for.
#[test]
fn a_known_checksum_does_not_hold_up_a_fast_link() {
    let dir = tempfile::tempdir().unwrap();
    let count = 2 * TOLD_AFTER;
    let size = count as u64 * CHUNK as u64;
    let chunk = &bytes()[..CHUNK];
    let checksum = Sha512::of(b"told");
    let known = Manifest {
        size,
        checksum: Some(checksum),
        chunks: vec![Chunk::of(chunk); count],
    };
    let cancel = Cancel::never();
    let assembly = Assembly::open(&paths(dir.path()), size, Some(known), cancel).unwrap();
    // The hash can begin when nearly all is there: whoever brings the last chunk finds it far behind.
    let last = u32::try_from(count).unwrap() - 1;
    for index in (1..last).chain([0, last]) {
        assembly.put_chunk(index, chunk).unwrap();
    }
    let received = assembly.finish().unwrap();
    assert!(received.unproven, "all of it was hashed meanwhile");
    assert_eq!(received.manifest.checksum, Some(checksum));
}

/// Holes come faster than they are hashed: the image does not wait, and says what is not proven.
#[test]
fn a_checksum_that_is_far_behind_is_taken_as_told() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let size = 4096 * CHUNK as u64;
    let mut chunks = vec![Chunk::Hole; 4096];
    chunks[7] = Chunk::of(&bytes()[..CHUNK]);
    let checksum = Sha512::of(b"told");
    let known = Manifest {
        size,
        checksum: Some(checksum),
        chunks,
    };
    let assembly = Assembly::open(&paths, size, Some(known.clone()), Cancel::never()).unwrap();
    assert_eq!(assembly.missing(), [7]);
    assembly.put_chunk(7, &bytes()[..CHUNK]).unwrap();
    let received = assembly.finish().unwrap();
    assert!(received.unproven);
    assert_eq!(received.manifest, known);
}
