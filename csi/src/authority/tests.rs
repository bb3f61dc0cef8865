use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proto::csi::v1 as csi;
use proto::csi::v1::identity_server::{Identity, IdentityServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::lenient::{CONTINUATION, Filter, HEADERS, Lenient, NAME, NAME_CODED, PADDED, PRIORITY};

/// A frame of HTTP/2 on stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = u8::from(kind != 4);
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
    bytes
}

/// A literal field that is remembered, with a name of the static table.
fn literal(index: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x40 | index, u8::try_from(value.len()).unwrap()];
    bytes.extend(value);
    bytes
}

/// The fields of a call but for its authority: POST, http, the path, and gRPC's two.
fn fields() -> Vec<u8> {
    let mut bytes = vec![0x83, 0x86];
    bytes.extend(literal(4, b"/csi.v1.Identity/GetPluginInfo"));
    bytes.extend(literal(31, b"application/grpc"));
    bytes.extend([0x40, 2]);
    bytes.extend(b"te");
    bytes.push(8);
    bytes.extend(b"trailers");
    bytes
}

/// `unix:/csi` in Huffman's code, as grpc-go would send it: RFC 7541, appendix B.
const CODED: [u8; 7] = [0xb6, 0xa3, 0x79, 0xb8, 0xc1, 0x10, 0x6f];

/// Ways to spell the authority; each with the path of a socket.
fn authorities() -> Vec<(&'static str, Vec<u8>)> {
    let path = b"/var/lib/kubelet/plugins/driver.longhorn.io/csi.sock";
    let named = |name: &[u8], coded: u8| {
        let mut bytes = vec![0x00, u8::try_from(name.len()).unwrap() | coded];
        bytes.extend(name);
        bytes.push(u8::try_from(path.len()).unwrap());
        bytes.extend(path);
        bytes
    };
    let mut coded = vec![0x41, 0x80 | 7];
    coded.extend(CODED);
    let mut never = vec![0x11, u8::try_from(path.len()).unwrap()];
    never.extend(path);
    let mut long = vec![0x41, 0x7f, 73];
    long.extend([b'/'; 200]);
    vec![
        ("a plain path", literal(1, path)),
        ("percent-encoded", literal(1, b"%2Fcsi%2Fcsi.sock")),
        ("a URL", literal(1, b"unix:///csi/csi.sock")),
        ("Huffman's code", coded),
        ("never remembered", never),
        ("a name in full", named(NAME, 0)),
        ("a name in Huffman's code", named(NAME_CODED, 0x80)),
        ("a long length", long),
        ("an ordinary host", literal(1, b"localhost")),
        ("nothing", Vec::new()),
    ]
}

struct Plugin;

#[tonic::async_trait]
impl Identity for Plugin {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: "reached".to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn probe(
        &self,
        _: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn serve(path: &Path, lenient: bool) {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let server = tonic::transport::Server::builder().add_service(IdentityServer::new(Plugin));
    let streams = UnixListenerStream::new(listener);
    if lenient {
        tokio::spawn(server.serve_with_incoming(streams.map(|one| one.map(Lenient::new))));
    } else {
        tokio::spawn(server.serve_with_incoming(streams));
    }
}

/// What the server sends before it is quiet: whether it knows the name of the plugin.
async fn reaches(path: &Path, mut sent: Vec<u8>, cut: usize) -> bool {
    let mut stream = UnixStream::connect(path).await.unwrap();
    sent.extend(frame(0, 1, &[0; 5]));
    for piece in sent.chunks(cut) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::time::timeout(Duration::from_mins(5), stream.read(&mut buffer));
        let length = read.await.expect("the server answers").unwrap();
        answer.extend(&buffer[..length]);
        if answer.windows(7).any(|window| window == b"reached") {
            return true;
        }
        // A GOAWAY or RST_STREAM, or the end.
        let is_reset = || {
            let mut at = 0;
            while let Some(head) = answer.get(at..at + 9) {
                if matches!(head[3], 3 | 7) {
                    return true;
                }
                at += 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            }
            false
        };
        if length == 0 || is_reset() {
            return false;
        }
    }
}

fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, &[]));
    bytes
}

#[tokio::test]
async fn a_caller_that_names_the_socket_reaches_the_plugin() {
    let root = tempfile::tempdir().unwrap();
    let (strict, lenient) = (root.path().join("strict"), root.path().join("lenient"));
    serve(&strict, false);
    serve(&lenient, true);
    for (case, authority) in authorities() {
        let mut block = authority.clone();
        block.extend(fields());
        let mut plain = preface();
        plain.extend(frame(HEADERS, 4, &block));
        assert!(reaches(&lenient, plain.clone(), 65536).await, "{case}");
        assert!(
            reaches(&lenient, plain.clone(), 1).await,
            "{case}, a byte at a time"
        );
        let mut padded = vec![7, 0, 0, 0, 0, 16];
        padded.extend(&block);
        padded.extend([0; 7]);
        let mut sent = preface();
        sent.extend(frame(HEADERS, 4 | PADDED | PRIORITY, &padded));
        assert!(reaches(&lenient, sent, 13).await, "{case}, padded");
        for cut in [1, 2, 10, block.len() - 1] {
            let mut sent = preface();
            sent.extend(frame(HEADERS, 0, &block[..cut]));
            sent.extend(frame(CONTINUATION, 4, &block[cut..]));
            assert!(
                reaches(&lenient, sent, 64).await,
                "{case}, continued at {cut}"
            );
        }
        if case == "a plain path" {
            // What this is all about: an HTTP/2 server by itself does not take it.
            assert!(!reaches(&strict, plain, 65536).await, "{case}");
        }
    }
}

/// What a filter makes of bytes that come in pieces.
fn filtered(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut filter, mut out) = (Filter::default(), bytes.to_vec());
    let mut rest = out.as_mut_slice();
    for cut in cuts {
        let (now, later) = rest.split_at_mut((*cut).min(rest.len()));
        filter.pass(now);
        rest = later;
    }
    filter.pass(rest);
    out
}

proptest! {
    /// Whatever comes, in whatever pieces: no panic, no byte more or less, the same result.
    #[test]
    fn any_bytes_pass(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        flags in any::<u8>(),
        cuts in prop::collection::vec(0..40usize, 0..20),
    ) {
        let mut bytes = preface();
        bytes.extend(frame(HEADERS, flags, &noise));
        bytes.extend(frame(CONTINUATION, 4, &noise));
        bytes.extend(&noise);
        let whole = filtered(&bytes, &[]);
        prop_assert_eq!(whole.len(), bytes.len());
        prop_assert_eq!(filtered(&bytes, &cuts), whole);
    }

    /// Bodies of requests are nobody's business.
    #[test]
    fn data_is_left_as_it_is(body in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = preface();
        bytes.extend(frame(0, 1, &body));
        prop_assert_eq!(filtered(&bytes, &[]), bytes);
    }
}
