//! What the kubelet reads: one JSON object on standard output, and an exit code that agrees with it.
//! The only place of the program that prints.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use types::Classify as _;

use crate::error::Error;

/// The longest message, in characters: it ends up in an event of the pod, which holds 1 KiB, and in
/// the kubelet's log.
const MESSAGE_MAX: usize = 4096;

/// The outcome of a call, in FlexVolume's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Status {
    /// It is done, or was before.
    Success,
    /// It is not done.
    Failure,
    /// The driver does not have this call: the kubelet does what it does by default.
    #[serde(rename = "Not supported")]
    NotSupported,
}

/// What the driver can do (`init`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the kubelet's own form")]
pub(crate) struct Capabilities {
    attach: bool,
    #[serde(rename = "selinuxRelabel")]
    relabel: bool,
    fs_group: bool,
    supports_metrics: bool,
    #[serde(rename = "requiresFSResize")]
    requires_fs_resize: bool,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reply {
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_new_size: Option<i64>,
}

impl Reply {
    fn new(status: Status, message: &str) -> Self {
        Self {
            status,
            message: message.chars().take(MESSAGE_MAX).collect(),
            device: None,
            attached: None,
            capabilities: None,
            volume_new_size: None,
        }
    }

    pub(crate) fn success(message: impl AsRef<str>) -> Self {
        Self::new(Status::Success, message.as_ref())
    }

    /// It is not done, and why.
    pub(crate) fn failure(message: impl AsRef<str>) -> Self {
        Self::new(Status::Failure, message.as_ref())
    }

    /// What an error means to the kubelet.
    pub(crate) fn from_error(error: &Error) -> Self {
        let status = match error.kind() {
            types::ErrorKind::Unimplemented if matches!(error, Error::NotSupported) => {
                Status::NotSupported
            }
            _ => Status::Failure,
        };
        Self::new(status, &types::report(error).to_string())
    }

    /// What the driver can do. Unknown keys are ignored by kubelets that are older than them.
    pub(crate) fn init(attach: bool) -> Self {
        let capabilities = Capabilities {
            attach,
            relabel: true,
            fs_group: true,
            supports_metrics: true,
            requires_fs_resize: true,
        };
        Self {
            capabilities: Some(capabilities),
            ..Self::success("")
        }
    }

    /// With the device of the volume.
    pub(crate) fn with_device(self, device: String) -> Self {
        let device = Some(device);
        Self { device, ..self }
    }

    /// With whether the volume is attached.
    pub(crate) fn with_attached(self, attached: bool) -> Self {
        let attached = Some(attached);
        Self { attached, ..self }
    }

    /// With the size that the volume has now.
    pub(crate) fn with_new_size(self, size: types::ByteSize) -> Self {
        let volume_new_size = Some(i64::try_from(size.bytes()).unwrap_or(i64::MAX));
        Self {
            volume_new_size,
            ..self
        }
    }
}

/// Whether the reply is printed: two threads may want to, when the time is up.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// Prints the reply, unless one is printed already, and gives its exit code. `Not supported` is an
/// answer and no failure: drivers in the field end with 0 there. At a terminal, where no kubelet ever
/// is, what there is to read is printed as it is.
pub(crate) fn print(reply: &Reply) -> ExitCode {
    if PRINTED.swap(true, Ordering::SeqCst) {
        return ExitCode::FAILURE;
    }
    let mut stdout = std::io::stdout().lock();
    let mut line = if stdout.is_terminal() && !reply.message.is_empty() {
        reply.message.clone().into_bytes()
    } else {
        serde_json::to_vec(reply).expect("a reply is plain JSON")
    };
    line.push(b'\n');
    let written = stdout.write_all(&line).and_then(|()| stdout.flush());
    if written.is_ok() && reply.status != Status::Failure {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_spelled_as_the_kubelet_reads_it() {
        let text = |reply: &Reply| serde_json::to_string(reply).unwrap();
        assert_eq!(
            text(&Reply::from_error(&Error::NotSupported)),
            r#"{"status":"Not supported","message":"this driver leaves the call to the kubelet"}"#
        );
        assert_eq!(
            text(&Reply::failure("a \"quoted\"\nword")),
            r#"{"status":"Failure","message":"a \"quoted\"\nword"}"#
        );
        assert_eq!(
            text(&Reply::init(false)),
            "{\"status\":\"Success\",\"capabilities\":{\"attach\":false,\"selinuxRelabel\":true,\
             \"fsGroup\":true,\"supportsMetrics\":true,\"requiresFSResize\":true}}"
        );
        let reply = Reply::success("").with_device("/dev/longhorn/v".to_owned());
        assert_eq!(
            text(&reply.with_attached(true)),
            r#"{"status":"Success","device":"/dev/longhorn/v","attached":true}"#
        );
        assert_eq!(
            text(&Reply::success("").with_new_size(types::ByteSize(4096))),
            r#"{"status":"Success","volumeNewSize":4096}"#
        );
    }

    #[test]
    fn a_message_is_never_endless() {
        assert_eq!(
            Reply::failure("é".repeat(1 << 20)).message.chars().count(),
            MESSAGE_MAX
        );
    }
}
