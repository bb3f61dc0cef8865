//! Commands for people, run beside the controller: `longhorn-csi-plugin volume …`. They read and change records alone;
//! the controller that leads does the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubernetes::Api;
use replication::Status;
use types::{NodeId, VolumeName};

use crate::config::{Account, Command, VolumeCommand};
use crate::error::{Error, Result, replicated};
use crate::replicated::{Records, Stored, seen};

/// Between two looks at what a command waits for.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a record takes that is made again.
const REBUILT: Duration = Duration::from_mins(2);

/// Runs a command; what it prints goes to `say`, a line at a time.
pub async fn run(command: Command, say: impl Fn(&str)) -> Result<()> {
    let command = match command {
        Command::Volume(command) => command,
        Command::Target(command) => return crate::target::run(command).await,
        Command::Share { words } => return Ok(host::shares::command(&words)?),
    };
    match command {
        VolumeCommand::List { account } => list(&records(&account).await?, say).await,
        VolumeCommand::Evacuate {
            node,
            undo,
            account,
        } => {
            let node = NodeId::new(&node).map_err(Error::Name)?;
            evacuate(&records(&account).await?, &node, undo, say).await
        }
        VolumeCommand::RebuildRecord { volume, account } => {
            let volume = VolumeName::new(&volume).map_err(Error::Name)?;
            rebuild(&records(&account).await?, &volume, say).await
        }
    }
}

async fn list(records: &Records, say: impl Fn(&str)) -> Result<()> {
    let records = records.list().await?;
    let width = records.iter().map(|one| one.name.len()).max();
    let width = width.unwrap_or_default().max("VOLUME".len());
    say(&format!(
        "{:width$}  {:>8}  {:20}  {:12}  DETAIL",
        "VOLUME", "REPLICAS", "HOLDER", "STATE"
    ));
    for stored in &records {
        let (spec, status) = (&stored.spec, seen(stored));
        let holder = spec.holder.as_ref().map_or("-", NodeId::as_str);
        let current = status.map_or(0, |status| status.current);
        let replicas = format!("{current}/{}", spec.number_of_replicas);
        let state = status.map_or("Unknown", |status| status.health.as_str());
        let detail = status.and_then(Status::trouble).unwrap_or_default();
        say(&format!(
            "{:width$}  {replicas:>8}  {holder:20}  {state:12}  {detail}",
            spec.volume.as_str()
        ));
    }
    Ok(())
}

async fn evacuate(records: &Records, node: &NodeId, undo: bool, say: impl Fn(&str)) -> Result<()> {
    let mut shown = BTreeMap::new();
    loop {
        let (mut left, mut why) = (0, BTreeMap::new());
        for mut stored in records.list().await? {
            let asked = stored.spec.evacuate.contains(node);
            let has = stored
                .spec
                .members
                .iter()
                .any(|member| member.node == *node);
            if undo {
                if asked {
                    stored.spec.evacuate.retain(|one| one != node);
                    change(records, &mut stored).await?;
                }
                continue;
            }
            if !has {
                continue;
            }
            left += 1;
            if !asked && !stored.spec.deleting {
                stored.spec.evacuate.push(node.clone());
                change(records, &mut stored).await?;
            }
            let detail = seen(&stored).and_then(Status::trouble);
            let detail = detail.unwrap_or("is being moved").to_owned();
            let is_holder = stored.spec.holder.as_ref() == Some(node);
            let detail = if is_holder {
                format!("{detail}; a pod on the node uses it: drain the node")
            } else {
                detail
            };
            why.insert(stored.name, detail);
        }
        if undo || left == 0 {
            say(&if undo {
                format!("node {node} may have replicas again")
            } else {
                format!("node {node} has no part of any replicated volume")
            });
            return Ok(());
        }
        if why != shown {
            for (volume, detail) in &why {
                say(&format!("{volume}: {detail}"));
            }
            shown = why;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes a change; one that somebody else was faster with is made in the next round.
async fn change(records: &Records, stored: &mut Stored) -> Result<()> {
    match records.replace(stored).await {
        Ok(()) | Err(replicated::Error::Changed { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn rebuild(records: &Records, volume: &VolumeName, say: impl Fn(&str)) -> Result<()> {
    if let Some(stored) = records.get(volume).await? {
        records.drop_record(&stored).await?;
        say(&format!("the record of volume {volume} is removed"));
    }
    let until = tokio::time::Instant::now() + REBUILT;
    while tokio::time::Instant::now() < until {
        if let Some(stored) = records.get(volume).await? {
            let members = stored.spec.replicas().map(|member| member.node.to_string());
            let members: Vec<String> = members.collect();
            say(&format!(
                "the record of volume {volume} is there again: replicas on {}",
                members.join(", ")
            ));
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(replicated::Error::Waiting {
        volume: volume.clone(),
        why: "its record is not there again yet: the controller that leads makes it when the majority of the \
              volume's replicas answers; see its log"
            .to_owned(),
    }
    .into())
}

/// The records, by the rights of an account.
async fn records(account: &Account) -> Result<Records> {
    let api = Api::in_cluster(&account.account_dir).await;
    Ok(Records::new(Arc::new(api.map_err(Error::Kubernetes)?)))
}
