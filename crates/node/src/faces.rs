//! What holds around the calls wherever they come in: bounds of their size, time and number, and who may make them.

use std::sync::Arc;

use axum::Router;
use listen::{access, calls};
use proto::node::v1::node_server::NodeServer;
use tonic::service::Routes;
use trust::Policy;

use crate::Service;

/// The service, to be served by a [`listen::Listener`]: at a unix socket for root and the user of this process, over
/// the network for programs with certificates, each for the calls that the table of roles lets them make.
pub fn router(service: Service) -> Router {
    let policy = Arc::new(Policy {
        node: Some(service.node_id().clone()),
        ..Policy::default()
    });
    let server = NodeServer::new(service).max_decoding_message_size(calls::MESSAGE_MAX);
    access::grpc(Routes::new(server), policy)
}
