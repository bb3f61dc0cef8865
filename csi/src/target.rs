//! The pod of the iSCSI targets: `longhorn-csi-plugin target …`, the first process in it.

use std::io;

use host::confine::{Work, restrict};
use host::target::daemon::{Daemon, answers, prepare};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::TargetCommand;
use crate::error::{Error, Result};

pub(crate) async fn run(command: TargetCommand) -> Result<()> {
    match command {
        TargetCommand::Serve { socket } => serve(&socket.socket).await,
        TargetCommand::Prepare {
            socket,
            owner: (uid, gid),
        } => Ok(prepare(&socket.socket, uid, gid)?),
        TargetCommand::Check { socket } => Ok(answers(&socket.socket)?),
    }
}

/// Serves until it is told to stop, or tgtd ends.
async fn serve(socket: &std::path::Path) -> Result<()> {
    // Before tgtd and before any thread: both keep what this process has. tgtd reads what initiators send.
    let confined = restrict(Work::Unprivileged)?;
    tracing::info!("confined: {confined}");
    for missing in &confined.missing {
        tracing::warn!("not confined in one way: {missing}");
    }
    // Before tgtd starts: the first process of a pod does not end by a signal that it does not wait for.
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut child = listen(SignalKind::child())?;
    let mut daemon = Daemon::start(socket)?;
    tracing::info!("tgtd runs, and has no target until the node service puts them");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = child.recv() => if let Some(status) = daemon.ended()? {
                return Err(host::Error::TargetEnded { status }.into());
            },
        }
    }
    Ok(daemon.stop()?)
}

fn listen(kind: SignalKind) -> Result<Signal> {
    let error = |source: io::Error| Error::io("listen for signals in", "this process")(source);
    signal(kind).map_err(error)
}
