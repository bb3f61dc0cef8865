//! What came of an image: waited for, told, or why it failed.

use client::{Client, Member, terminal, wire};

use crate::error::{Error, Result};
use crate::output::{note, print};

/// Says what became of an image.
pub(crate) fn done(image: &wire::BackingImage, member: &Member) -> Result<()> {
    let (state, node) = (client::state_name(image.state()), &member.disk.node_id);
    let name = &image.name;
    if image.state() != wire::State::Ready {
        note(&format!(
            "it goes on by itself; see: kubectl longhorn-image get images {name}"
        ));
    }
    Ok(print(&format!("image/{name} {state} on node {node}\n"))?)
}

/// Waits for an image, and shows progress.
pub(crate) async fn finished(
    client: &Client,
    image: wire::BackingImage,
) -> Result<wire::BackingImage> {
    failed(terminal::wait_image(client, image).await?)
}

/// An image, unless it has failed.
pub(crate) fn failed(image: wire::BackingImage) -> Result<wire::BackingImage> {
    if image.state() != wire::State::Failed {
        return Ok(image);
    }
    Err(Error::Refused(format!(
        "image {} failed: {}; the same command tries again",
        image.name, image.message
    )))
}
