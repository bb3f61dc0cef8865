//! `longhorn.storage.v1.Backups`.

use std::pin::Pin;

use backup_jobs::{Error, Restore, Result, Stage, View};
use catalog::source::Source;
use proto::storage::v1 as pb;
use proto::storage::v1::backups_server::Backups;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use types::{ImageName, VolumeName};

use super::{Service, status, wire};

type Answer<T> = Result<Response<T>, Status>;
type Backup = Result<pb::Backup, Status>;
type States = Pin<Box<dyn Stream<Item = Backup> + Send>>;

fn refused(error: Error) -> Status {
    status::of(&error.into())
}

/// Backups in one answer, so that it is not larger than one may be.
const LISTED_MAX: usize = 50_000;
/// Problems in one answer, and the characters of each.
const PROBLEMS_MAX: usize = 1000;
const PROBLEM_MAX: usize = 1000;

impl Service {
    /// The source of an image that a backup is restored to, and the name that it has unless one is given.
    pub(super) fn restore(&self, source: pb::BackupSource) -> Result<(Source, ImageName)> {
        let item = wire::restored(&source)?;
        let asked = wire::asked(source.target)?;
        let restore = Restore::new(&self.backups, &asked, item)?;
        let name = backup_jobs::derived_name(restore.address());
        Ok((restore.into(), name))
    }

    async fn get_backup(&self, request: pb::GetBackupRequest) -> Result<pb::Backup> {
        let (asked, volume, name) = wire::backup_key(request)?;
        let target = self.backups.targets().choose(&asked)?;
        // How one failed is told for as long as it is known: the store says less. What is complete may have been
        // deleted by somebody else since.
        if let Some(view) = self.backups.find(&target, &volume, &name)
            && !matches!(view.state.stage, Stage::Complete(_))
        {
            return Ok(wire::running(&view));
        }
        let info = self.backups.stored(&target, &volume, &name).await?;
        Ok(wire::stored(&info, &target))
    }

    async fn watch_backup(&self, request: pb::GetBackupRequest) -> Result<States> {
        let (asked, volume, name) = wire::backup_key(request.clone())?;
        let target = self.backups.targets().choose(&asked)?;
        let Some((view, states)) = self.backups.watch(&target, &volume, &name) else {
            let once = self.get_backup(request).await?;
            return Ok(Box::pin(tokio_stream::once(Ok(once))));
        };
        // `None` once the last state was told: the stream ends with it.
        let states = WatchStream::new(states);
        let told = futures_util::stream::unfold(Some((view, states)), async |watching| {
            let (view, mut states) = watching?;
            let state = states.next().await?;
            let settled = state.stage.is_settled();
            let view = View { state, ..view };
            let backup = Ok(wire::running(&view));
            Some((backup, (!settled).then_some((view, states))))
        });
        let stopped = self.catalog.stopped();
        Ok(Box::pin(futures_util::StreamExt::take_until(told, stopped)))
    }

    async fn list_backups(
        &self,
        request: pb::ListBackupsRequest,
    ) -> Result<pb::ListBackupsResponse> {
        let asked = wire::asked(request.target)?;
        let volume = wire::checked(&request.volume, str::parse)?;
        let target = self.backups.targets().choose(&asked)?;
        let listed = self.backups.list(&target, volume.as_ref()).await?;
        let (count, mut problems) = (listed.items.len(), listed.problems);
        let backups = listed.items.iter().take(LISTED_MAX).map(|info| {
            match self.backups.find(&target, &info.volume, &info.name) {
                Some(view) if !view.state.stage.is_settled() => wire::running(&view),
                _ => wire::stored(info, &target),
            }
        });
        let backups = backups.collect();
        problems.truncate(PROBLEMS_MAX);
        for problem in &mut problems {
            *problem = problem.chars().take(PROBLEM_MAX).collect();
        }
        if count > LISTED_MAX {
            problems.push(format!(
                "only {LISTED_MAX} of {count} backups are listed; name a volume"
            ));
        }
        Ok(pb::ListBackupsResponse { backups, problems })
    }

    async fn repair_blocks(
        &self,
        request: pb::RepairBlocksRequest,
    ) -> Result<pb::RepairBlocksResponse> {
        let asked = wire::asked(request.target)?;
        let volume = VolumeName::new(&request.volume)?;
        let damaged = request.blocks.iter().map(wire::damaged);
        let damaged = damaged.collect::<Result<Vec<_>>>()?;
        let done = self.backups.repair(&asked, &volume, damaged).await?;
        Ok(pb::RepairBlocksResponse {
            repaired: done.repaired.into_iter().collect(),
            lost: done.lost.into_iter().collect(),
        })
    }
}

#[tonic::async_trait]
impl Backups for Service {
    async fn create_backup(&self, request: Request<pb::CreateBackupRequest>) -> Answer<pb::Backup> {
        let new = wire::new_backup(request.into_inner()).map_err(refused)?;
        let view = self.backups.create(new).await.map_err(refused)?;
        Ok(Response::new(wire::running(&view)))
    }

    async fn get_backup(&self, request: Request<pb::GetBackupRequest>) -> Answer<pb::Backup> {
        let backup = Self::get_backup(self, request.into_inner()).await;
        backup.map(Response::new).map_err(refused)
    }

    type WatchBackupStream = States;

    async fn watch_backup(
        &self,
        request: Request<pb::GetBackupRequest>,
    ) -> Answer<Self::WatchBackupStream> {
        let states = Self::watch_backup(self, request.into_inner()).await;
        states.map(Response::new).map_err(refused)
    }

    async fn cancel_backup(
        &self,
        request: Request<pb::GetBackupRequest>,
    ) -> Answer<pb::CancelBackupResponse> {
        let (asked, volume, name) = wire::backup_key(request.into_inner()).map_err(refused)?;
        let target = self.backups.targets().choose(&asked).map_err(refused)?;
        self.backups.cancel(&target, &volume, &name).await;
        Ok(Response::new(pb::CancelBackupResponse {}))
    }

    async fn list_backups(
        &self,
        request: Request<pb::ListBackupsRequest>,
    ) -> Answer<pb::ListBackupsResponse> {
        let listed = Self::list_backups(self, request.into_inner()).await;
        listed.map(Response::new).map_err(refused)
    }

    async fn delete_backup(
        &self,
        request: Request<pb::GetBackupRequest>,
    ) -> Answer<pb::DeleteBackupResponse> {
        let (asked, volume, name) = wire::backup_key(request.into_inner()).map_err(refused)?;
        let target = self.backups.targets().choose(&asked).map_err(refused)?;
        // It goes on when the caller is gone.
        let backups = self.backups.clone();
        let delete = async move { backups.delete(&target, &volume, &name).await };
        let deleted = tokio::spawn(delete).await;
        let deleted = deleted.map_err(Error::from).and_then(|done| done);
        deleted.map_err(refused)?;
        Ok(Response::new(pb::DeleteBackupResponse {}))
    }

    async fn repair_blocks(
        &self,
        request: Request<pb::RepairBlocksRequest>,
    ) -> Answer<pb::RepairBlocksResponse> {
        let done = Self::repair_blocks(self, request.into_inner()).await;
        done.map(Response::new).map_err(refused)
    }
}
