//! gRPC calls whose messages are plain bytes: none of our own encoders is between the test and the
//! wire.

use bytes::{Buf, BufMut};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::block_on;

/// Longhorn's service.
pub const SERVICE: &str = "bimrpc.BackingImageManagerService";

/// A connection for calls of bytes.
#[derive(Debug, Clone)]
pub struct RawGrpc {
    channel: Channel,
}

impl RawGrpc {
    /// A connection to `host:port`, made at the first call.
    pub fn new(address: &str) -> Self {
        let channel = block_on(async {
            Endpoint::from_shared(format!("http://{address}"))
                .expect("an address makes a URI")
                .connect_lazy()
        });
        Self { channel }
    }

    /// Calls a unary method with the bytes of a message.
    pub fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        block_on(self.call_async(&format!("/{SERVICE}/{method}"), message.to_vec()))
    }

    /// The same for any path.
    pub async fn call_async(&self, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let path: PathAndQuery = path.parse().expect("a method is a path");
        let answer = client.unary(Request::new(message), path, Bytes).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Calls a method that answers with a stream.
    pub async fn stream(&self, method: &str) -> Result<tonic::Streaming<Vec<u8>>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let path: PathAndQuery = format!("/{SERVICE}/{method}")
            .parse()
            .expect("a method is a path");
        let answer = client.server_streaming(Request::new(Vec::new()), path, Bytes);
        answer.await.map(tonic::Response::into_inner)
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
