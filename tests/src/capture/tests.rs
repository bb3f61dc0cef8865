//! Captures that tcpdump made on one machine: of Python's web server, and of OpenSSL's with TLS. The ports are 8000
//! (plain), 8001 (TLS 1.3), and 8002 (TLS 1.2).

use super::records::{Records, Why};
use super::*;
use crate::programs::sources;

fn fixture(name: &str) -> PathBuf {
    sources().join(format!("tests/fixtures/captures/{name}.pcap"))
}

fn judged(name: &str) -> Judge {
    let mut judge = Judge::new(|end| (8000..=8003).contains(&end.port()));
    judge.read(&[fixture(name)]);
    judge
}

/// Port of the server, and words of the fault, of each stream that is not TLS.
fn told(judge: &Judge) -> Vec<String> {
    judge.faults().iter().map(ToString::to_string).collect()
}

#[test]
fn tls_is_tls_in_both_directions() {
    let judge = judged("tls");
    assert_eq!(told(&judge), [""; 0]);
    let seen = judge.seen()[&8001];
    assert_eq!((seen.asked, seen.answered), (2, 2));
    assert!(seen.bytes > 2 * 17_000, "{seen:?}");
    assert_eq!(judge.seen().len(), 1);
}

#[test]
fn plain_streams_are_found() {
    let told = told(&judged("plain"));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("in the clear, from byte 0 on: \"GET /short HTTP/1.1"),
        "{told:?}"
    );
    assert!(
        told[1].contains("in the clear, from byte 0 on: \"HTTP/1.0 200 OK"),
        "{told:?}"
    );
}

#[test]
fn a_plain_client_of_a_tls_port_is_found() {
    let told = told(&judged("client-plain"));
    assert!(told[0].contains(":8001, at "), "{told:?}");
    assert!(told[0].contains("\"GET /short HTTP/1.1"), "{told:?}");
}

#[test]
fn an_older_tls_is_found() {
    let told = told(&judged("tls-1.2"));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().all(|one| one.contains("older than 1.3")),
        "{told:?}"
    );
}

/// The same packets twice, as where a stream goes through two interfaces; and other ports than those that are asked
/// for.
#[test]
fn what_is_seen_twice_is_read_once_and_other_ports_not_at_all() {
    let mut judge = Judge::new(|end| end.port() == 8001);
    judge.read(&[fixture("tls"), fixture("tls"), fixture("plain")]);
    let mut once = Judge::new(|end| end.port() == 8001);
    once.read(&[fixture("tls")]);
    assert_eq!(told(&judge), [""; 0]);
    assert_eq!(judge.seen(), once.seen());
}

/// Where addresses are translated, a client may have any port, also one that is a server's elsewhere.
#[test]
fn who_was_asked_is_the_server_whatever_the_clients_port() {
    let mut judge = Judge::new(|end| end.port() >= 32_768);
    judge.read(&[fixture("plain")]);
    assert_eq!(told(&judge), [""; 0]);
    assert!(judge.seen().is_empty());
}

/// A capture without some of its packets: the check says so in place of passing.
#[test]
fn what_was_not_captured_is_told() {
    let packets: Vec<_> = file::packets(&fixture("tls")).collect();
    let segments: Vec<_> = packets.iter().filter_map(Segment::of).collect();
    let client = segments[0].from;
    let answer: Vec<_> = segments
        .iter()
        .filter(|segment| segment.from.port() == 8001 && segment.to == client)
        .collect();
    assert!(answer[0].syn && answer.len() > 8);
    let mut stream = Stream::unseen();
    assert_eq!(
        answer
            .iter()
            .filter_map(|segment| stream.take(segment))
            .collect::<Vec<_>>(),
        [stream::Fault::Beginning]
    );
    let missing = answer
        .iter()
        .position(|segment| !segment.payload.is_empty())
        .unwrap()
        + 1;
    let mut stream = Stream::begin(answer[0]);
    for (number, segment) in answer.iter().enumerate() {
        let fault = if number == missing {
            None
        } else {
            stream.take(segment)
        };
        assert_eq!(fault, None);
    }
    assert!(matches!(stream.end(), Some(stream::Fault::Gap { .. })));
    // In any order, and again, nothing is missing.
    let mut stream = Stream::begin(answer[0]);
    for segment in answer.iter().rev().chain(&answer) {
        assert_eq!(stream.take(segment), None);
    }
    assert_eq!((stream.end(), stream.bytes() > 17_000), (None, true));
}

fn record(kind: u8, length: u16) -> Vec<u8> {
    let mut bytes = vec![kind, 3, 3];
    bytes.extend(length.to_be_bytes());
    bytes.resize(5 + usize::from(length), 0xaa);
    bytes
}

fn read(records: &[Vec<u8>]) -> Option<(u64, Why)> {
    let bytes = records.concat();
    let whole = Records::new().take(&bytes, 0);
    // However the bytes are cut.
    let (mut piecewise, mut offset) = (Records::new(), 0);
    let found = bytes.iter().find_map(|byte| {
        offset += 1;
        piecewise.take(&[*byte], offset - 1)
    });
    let fault = whole.map(|fault| (fault.offset, fault.why));
    assert_eq!(found.map(|fault| (fault.offset, fault.why)), fault);
    fault
}

#[test]
fn every_record_counts_and_not_the_first_alone() {
    let (hello, change, data) = (record(22, 300), record(20, 1), record(23, 400));
    let of =
        |parts: &[&Vec<u8>]| read(&parts.iter().map(|part| (*part).clone()).collect::<Vec<_>>());
    assert_eq!(of(&[&hello, &change, &data, &data]), None);
    assert_eq!(of(&[&hello, &change, &hello, &data]), None);
    assert_eq!(of(&[&record(21, 2)]), None);
    // Nothing but the beginning of a stream was sent before it was cut.
    assert_eq!(of(&[&hello[..3].to_vec()]), None);
    assert_eq!(of(&[&data]), Some((0, Why::NoHello)));
    assert_eq!(of(&[&hello, &data, &hello]), Some((710, Why::OlderVersion)));
    assert_eq!(
        of(&[&hello, &hello, &hello]),
        Some((610, Why::OlderVersion))
    );
    assert_eq!(
        of(&[&hello, &b"PRI * HTTP/2.0".to_vec()]),
        Some((305, Why::NoRecord))
    );
    assert_eq!(
        of(&[&hello, &data, &b"\0\0\x12\x04".to_vec()]),
        Some((710, Why::NoRecord))
    );
    assert_eq!(
        of(&[&hello, &record(23, 16_641)]),
        Some((305, Why::NoRecord))
    );
    assert_eq!(of(&[&hello, &record(24, 4)]), Some((305, Why::NoRecord)));
}
