//! The sending end, against a misbehaving receiver.

use std::time::Duration;

use super::*;

/// A receiver like Go's: takes what comes, and can be told to fail.
struct Stub {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

async fn stub(answer: impl Fn(usize, &Call) -> u16 + Send + Sync + 'static) -> Stub {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::<Mutex<Vec<Call>>>::default();
    let (log, answer) = (calls.clone(), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (log, answer) = (log.clone(), answer.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (log, answer) = (log.clone(), answer.clone());
                async move {
                    let uri = request.uri().clone();
                    let call =
                        Call::parse(request.method().as_str(), uri.path(), uri.query()).unwrap();
                    let body = request.into_body().collect().await?.to_bytes();
                    if let Call::WriteData(range) = &call {
                        assert_eq!(body.len() as u64, range.end - range.start);
                    }
                    let status = {
                        let mut log = log.lock().unwrap();
                        log.push(call.clone());
                        answer(log.len(), &call)
                    };
                    let reply = Response::builder().status(status);
                    Ok::<_, hyper::Error>(reply.body(Full::new(body.slice(..0))).unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    Stub { address, calls }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_stumbles_gets_every_byte_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 16 * MIB);
    let stub = stub(|count, _| if count % 3 == 0 { 503 } else { 200 }).await;
    let sent = sending(&file, stub.address).run().await.unwrap();
    let calls = stub.calls.lock().unwrap();
    assert_eq!(
        calls[0],
        Call::Open {
            size: 16 * MIB,
            direct_io: false
        }
    );
    assert_eq!(calls.iter().filter(|call| **call == Call::Close).count(), 1);
    assert!(calls.len() as u64 > sent.requests + 2, "{calls:?}");
    // All holes are one request each.
    let mut holes: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            Call::SendHole(range) => Some((range.start, range.end)),
            _ => None,
        })
        .collect();
    holes.sort_unstable();
    holes.dedup();
    assert!(holes.len() <= 4, "{holes:?}");
}

/// A Go receiver cannot be told of a failure: it is left with a file that nothing can mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_fails_never_lets_a_receiver_believe_in_success() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 16 * MIB);
    let stub = stub(|_, call| {
        if matches!(call, Call::WriteData(r) if r.start > MIB) {
            400
        } else {
            200
        }
    })
    .await;
    let error = sending(&file, stub.address).run().await.unwrap_err();
    assert!(matches!(error, Error::Peer { .. }), "{error}");
    let calls = stub.calls.lock().unwrap();
    let end: Vec<_> = calls.iter().rev().take(2).rev().collect();
    assert_eq!(
        end,
        [
            &Call::Open {
                size: 1,
                direct_io: false
            },
            &Call::Close
        ]
    );
    assert_eq!(calls.iter().filter(|call| **call == Call::Close).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_receiver_learns_that_the_sender_gave_up() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 16 * MIB);
    file.write_all_at(&vec![9; 16 << 20], 0).unwrap();
    let (address, receiving) = site.receive(16 * MIB);
    let sending = sending(&file, address);
    // The file is shorter than it was when it was opened: reading fails half way.
    let shrinking = file.try_clone().unwrap();
    let rate = Arc::new(RateLimit::new(1 << 20));
    let sending = Sending { rate, ..sending };
    let work = tokio::spawn(sending.run());
    // All of it would take sixteen seconds.
    while site.told.0.lock().unwrap().0 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shrinking.set_len(2 * MIB).unwrap();
    work.await.unwrap().unwrap_err();
    let error = receiving.await.unwrap().unwrap_err();
    let text = report(&error).to_string();
    assert!(text.contains("then its sender gave up"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = sample(dir.path(), 8 * MIB);
    for to in ["", "host", "http://a:1/", "a:1/x", "u@a:1", "a b:1"] {
        let mut sending = sending(&file, (Ipv4Addr::LOCALHOST, 1).into());
        to.clone_into(&mut sending.to);
        let error = sending.run().await.unwrap_err();
        assert!(matches!(error, Error::InvalidField { .. }), "{to}: {error}");
    }
}
