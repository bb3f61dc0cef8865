//! What the kubelet reads: one JSON object on standard output, and an exit code that agrees with it.
//! The only place of the program that prints.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

/// The outcome of a call, in FlexVolume's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Status {
    /// The driver does not have this call.
    #[serde(rename = "Not supported")]
    NotSupported,
}

/// The answer to a call.
#[derive(Debug, Serialize)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Reply {
    /// Prints the reply and gives its exit code.
    pub(crate) fn print(&self) -> ExitCode {
        let mut line = serde_json::to_vec(self).expect("a reply is plain JSON");
        line.push(b'\n');
        match std::io::stdout().lock().write_all(&line) {
            Ok(()) if self.status != Status::NotSupported => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_spelled_as_the_kubelet_reads_it() {
        let reply = Reply {
            status: Status::NotSupported,
            message: "a \"quoted\"\nword".to_owned(),
        };
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(
            text,
            r#"{"status":"Not supported","message":"a \"quoted\"\nword"}"#
        );
    }
}
