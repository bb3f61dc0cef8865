//! Which store a command is about, and which backup in it.

use backup::{Address, Item, Name, Store};
use backup_jobs::{Asked, Target};
use client::wire;

use super::{Context, Failure};

/// The option of every command that is about a store.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Place {
    /// The target: its name in the configuration, or its address [default: the target `default`]
    #[arg(long, value_name = "NAME|ADDRESS")]
    target: Option<String>,
}

/// One backup: by its address, or by its names.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Which {
    #[command(flatten)]
    place: Place,
    /// Address of the backup: s3://BUCKET@REGION/PATH/?backup=NAME&volume=NAME
    #[arg(
        value_name = "ADDRESS",
        required_unless_present_all = ["volume", "name"],
        conflicts_with_all = ["volume", "name", "target"]
    )]
    address: Option<Address>,
    /// The volume
    #[arg(long, value_name = "NAME", requires = "name")]
    volume: Option<Name>,
    /// Name of the backup
    #[arg(long, value_name = "NAME", requires = "volume")]
    name: Option<Name>,
}

impl Place {
    /// The target as it is asked for.
    pub(super) fn asked(&self) -> Asked {
        let text = self.target.clone().unwrap_or_default();
        let (name, address) = if text.contains("://") {
            (String::new(), text)
        } else {
            (text, String::new())
        };
        Asked {
            name,
            address,
            ..Asked::default()
        }
    }

    /// The same for a daemon, which has its own targets.
    pub(super) fn wire(&self) -> wire::BackupTarget {
        to_wire(&self.asked())
    }

    /// The store, open.
    pub(super) fn open(&self, context: &Context) -> Result<(Target, Store), Failure> {
        open(context, &self.asked())
    }
}

fn to_wire(asked: &Asked) -> wire::BackupTarget {
    wire::BackupTarget {
        name: asked.name.clone(),
        address: asked.address.clone(),
        ..Default::default()
    }
}

fn open(context: &Context, asked: &Asked) -> Result<(Target, Store), Failure> {
    let target = context.targets.choose(asked)?;
    let store = context.targets.open(&target)?;
    Ok((target, store))
}

impl Which {
    fn asked(&self) -> Asked {
        match &self.address {
            Some(address) => Asked {
                address: address.store.to_string(),
                ..Asked::default()
            },
            None => self.place.asked(),
        }
    }

    /// What it names in its store.
    pub(super) fn item(&self) -> Result<Item, Failure> {
        match (&self.address, &self.volume, &self.name) {
            (Some(address), ..) => {
                let none = || format!("{address} is the address of a store; name the backup in it");
                Ok(address.item.clone().ok_or_else(none)?)
            }
            (None, Some(volume), Some(backup)) => Ok(Item::Backup {
                volume: volume.clone(),
                backup: backup.clone(),
            }),
            _ => Err("give the address of a backup, or --volume and --name".into()),
        }
    }

    /// The names of a volume and of its backup.
    pub(super) fn names(&self) -> Result<(Name, Name), Failure> {
        match self.item()? {
            Item::Backup { volume, backup } => Ok((volume, backup)),
            Item::Volume(volume) => {
                Err(format!("the address is that of volume {volume}; name its backup").into())
            }
            Item::BackingImage(image) => {
                Err(format!("the address is that of backing image {image}, not of a volume").into())
            }
        }
    }

    /// The target for a daemon.
    pub(super) fn wire(&self) -> wire::BackupTarget {
        to_wire(&self.asked())
    }

    /// The store, open.
    pub(super) fn open(&self, context: &Context) -> Result<(Target, Store), Failure> {
        open(context, &self.asked())
    }
}

/// The volume that was named, or each that there is; and what is wrong with the store's list of them.
pub(super) async fn volumes(
    store: &Store,
    one: Option<&Name>,
) -> Result<(Vec<Name>, Vec<String>), Failure> {
    if let Some(one) = one {
        return Ok((vec![one.clone()], Vec::new()));
    }
    let listed = store.volumes().await?;
    let names = listed.items.into_iter().map(|volume| volume.name);
    Ok((names.collect(), listed.problems))
}
