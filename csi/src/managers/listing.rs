//! What all managers have together: pages of volumes and of snapshots.

use client::{Client, wire};
use proto::csi::v1 as csi;
use types::report;

use super::Managers;
use crate::error::{Error, Result};
use crate::request::{ListSnapshots, Page};

impl Managers {
    /// A page of all volumes and the token of the next. A volume that is not listed is taken for one that
    /// is gone: those of a disk that is silent are shown as they were, with that as their condition.
    ///
    /// # Errors
    /// `Unavailable` where a disk is silent whose volumes are not known.
    pub(crate) async fn list(&self, page: &Page) -> Result<(Vec<wire::Volume>, String)> {
        let (most, after) = (page.max_entries, page.after.clone());
        let ask = |client: Client| {
            let after = after.clone();
            async move { client.list_volumes(most, &after).await }
        };
        let look = self.gather(ask, |_| false).await?;
        let (census, answers) = (look.census, look.others);
        let (mut all, mut more) = (Vec::new(), false);
        for (member, (volumes, has_more)) in census.members.iter().zip(answers) {
            self.seen
                .listed(&member.disk.uuid, &page.after, &volumes, has_more);
            all.extend(volumes);
            more |= has_more;
        }
        let silent = census.silent(&self.seen.disks());
        for (uuid, node) in &silent {
            let error = || client::Error::silent(uuid, node);
            let remembered = self.seen.remembered(uuid, &page.after).ok_or_else(error)?;
            all.extend(remembered.into_iter().map(|volume| wire::Volume {
                degraded: report(&error()).to_string(),
                ..volume
            }));
        }
        if census.unanswered > silent.len() {
            let (answered, managers) = (census.members.len(), census.asked());
            return Err(Error::Incomplete { answered, managers });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let (volumes, mut token) = page.cut(all, |volume| &volume.name);
        if token.is_empty() && more {
            token = volumes
                .last()
                .map(|last| Page::token(&last.name))
                .unwrap_or_default();
        }
        Ok((volumes, token))
    }

    /// A page of all snapshots and the token of the next. One that is asked for by its id, and found, is
    /// all there is; otherwise every disk must answer. `more` are in no manager.
    pub(crate) async fn list_snapshots(
        &self,
        request: &ListSnapshots,
        more: Vec<csi::Snapshot>,
    ) -> Result<(Vec<csi::Snapshot>, String)> {
        let by_id = !request.snapshot.is_empty();
        let ask = |client: Client| {
            let (snapshots, request) = (self.snapshots(client), request.clone());
            async move { snapshots.all(&request).await }
        };
        let enough = move |found: &Vec<csi::Snapshot>| by_id && !found.is_empty();
        let look = self.gather(ask, enough).await?;
        let mut all: Vec<csi::Snapshot> = if let Some((_, found)) = look.found {
            found
        } else {
            look.census.complete(&self.seen.disks(), None)?;
            look.others.into_iter().flatten().collect()
        };
        all.extend(more);
        all.sort_by(|a, b| a.snapshot_id.cmp(&b.snapshot_id));
        Ok(request.page.cut(all, |snapshot| &snapshot.snapshot_id))
    }
}
