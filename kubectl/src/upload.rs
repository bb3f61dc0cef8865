//! `upload`: a file goes to a manager in pieces, and on after a break.

use std::path::PathBuf;

use clap::Args;
use client::upload::Upload;
use client::{Client, Member, wire};
use types::{ImageName, report};

use crate::error::Result;
use crate::make::{PlaceArgs, choose};
use crate::outcome::{done, failed, finished};
use crate::output::note;
use crate::reach::{Managers, Reach};

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// The disk image: raw or qcow2
    file: PathBuf,
    /// Name of the backing image
    #[arg(long)]
    name: ImageName,
    /// Expected SHA-512 of the file
    #[arg(
        long,
        value_name = "SUM",
        default_value = "",
        hide_default_value = true
    )]
    checksum: String,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(crate) async fn run(reach: &Reach, args: UploadArgs) -> Result<()> {
    let mut upload = Upload::open(&args.file)?;
    let request = wire::CreateBackingImageRequest {
        name: args.name.to_string(),
        source: Some(upload.source()),
        expected_checksum: args.checksum,
        ..Default::default()
    };
    let managers = reach.managers().await?;
    // One that was begun is on its own disk, whatever has the most room now.
    let member = if let Some(member) = begun(&managers, &args.name).await? {
        member
    } else {
        let disks = managers.disks().await?.members;
        choose(
            disks.into_iter().map(|(member, ())| member).collect(),
            &args.place,
        )?
    };
    let mut client = member.client.clone();
    let again = async |client: &mut Client, broke: &client::Error| {
        note(&format!("{}: going on", report(broke)));
        // A forward ends with the pod that it leads to.
        if let Some(other) = same_disk(reach, &member).await {
            *client = other;
        }
    };
    let image = failed(upload.send(&mut client, &request, again).await?)?;
    let image = finished(&client, image).await?;
    done(&image, &member)
}

/// Another way to the same disk.
async fn same_disk(reach: &Reach, member: &Member) -> Option<Client> {
    let managers = reach.managers().await.ok()?;
    let members = managers.disks().await.ok()?.members;
    let mut found = members.into_iter().map(|(found, ())| found);
    let found = found.find(|found| found.disk.uuid == member.disk.uuid)?;
    Some(found.client)
}

/// The manager that has an image of this name.
async fn begun(managers: &Managers, name: &ImageName) -> Result<Option<Member>> {
    let answers = managers
        .ask(|client| {
            let name = name.clone();
            async move { client::there(client.image(&name, None).await) }
        })
        .await?;
    let mut having = answers
        .members
        .into_iter()
        .filter(|(_, image)| image.is_some());
    Ok(having.next().map(|(member, _)| member))
}
