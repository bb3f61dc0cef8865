//! The sync server of a manager, by its REST.

use std::fmt::Write;

use serde_json::Value;

use super::http::{Response, request};
use crate::wait;

/// The files of one sync server.
#[derive(Debug, Clone)]
pub struct Files {
    /// `host:port`.
    pub address: String,
}

/// A path as Go's `url.QueryEscape` writes it.
pub fn file_id(path: &str) -> String {
    let mut id = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            id.push(byte.into());
        } else {
            let _ = write!(id, "%{byte:02X}");
        }
    }
    id
}

impl Files {
    /// Every file, by its path.
    #[track_caller]
    pub fn list(&self) -> Value {
        let answer = request(&self.address, "GET", "/v1/files", &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("a list is JSON")
    }

    /// One file; `None` when nobody knows it.
    #[track_caller]
    pub fn get(&self, path: &str) -> Option<Value> {
        let target = format!("/v1/files/{}", file_id(path));
        let answer = request(&self.address, "GET", &target, &[], b"");
        match answer.status {
            200 => Some(serde_json::from_slice(&answer.body).expect("a file is JSON")),
            404 => None,
            status => panic!("{status}: {}", answer.text()),
        }
    }

    /// An action on the collection, with its parameters.
    pub fn create(&self, action: &str, parameters: &[(&str, &str)]) -> Result<(), String> {
        self.create_with(action, parameters, &[], b"")
    }

    /// The same with a body.
    pub fn create_with(
        &self,
        action: &str,
        parameters: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), String> {
        let mut target = format!("/v1/files?action={action}");
        for (key, value) in parameters {
            let _ = write!(target, "&{key}={}", file_id(value));
        }
        done(&request(&self.address, "POST", &target, headers, body))
    }

    /// Adopts the file at `to`, or takes over the one at `from`.
    pub fn fetch(
        &self,
        from: &str,
        to: &str,
        uuid: &str,
        more: &[(&str, &str)],
    ) -> Result<(), String> {
        let mut parameters = vec![
            ("src-file-path", from),
            ("dst-file-path", to),
            ("uuid", uuid),
        ];
        parameters.extend_from_slice(more);
        self.create("fetch", &parameters)
    }

    /// An action on one file.
    pub fn act(&self, path: &str, action: &str) -> Result<(), String> {
        let target = format!("/v1/files/{}?action={action}", file_id(path));
        done(&request(&self.address, "POST", &target, &[], b""))
    }

    /// Deletes a file.
    pub fn delete(&self, path: &str) -> Result<(), String> {
        let target = format!("/v1/files/{}", file_id(path));
        done(&request(&self.address, "DELETE", &target, &[], b""))
    }

    /// Asks for the bytes of a file.
    pub fn download(&self, path: &str, query: &str, headers: &[(&str, &str)]) -> Response {
        let target = format!("/v1/files/{}/download{query}", file_id(path));
        request(&self.address, "GET", &target, headers, b"")
    }

    /// Waits until a file is in one of these states.
    #[track_caller]
    pub fn wait(&self, path: &str, states: &[&str]) -> Value {
        wait::until(&format!("{path} is {states:?}"), || {
            let file = self.get(path)?;
            let state = file["state"].as_str().unwrap_or_default().to_owned();
            if states.contains(&state.as_str()) {
                return Some(file);
            }
            assert!(state != "failed" || states.contains(&"failed"), "{file}");
            None
        })
    }

    /// Waits until a file is ready, and sees that its sidecar says the same of it.
    #[track_caller]
    pub fn wait_ready(&self, path: &str) -> Value {
        let file = self.wait(path, &["ready"]);
        assert_eq!(file["progress"], 100);
        file
    }
}

fn done(answer: &Response) -> Result<(), String> {
    if answer.status == 200 {
        Ok(())
    } else {
        Err(answer.text())
    }
}

/// Sees that a sidecar says of a ready file what the REST says.
#[track_caller]
pub fn assert_sidecar_agrees(file: &Value, sidecar: &Value) {
    for key in [
        "uuid",
        "size",
        "virtualSize",
        "realSize",
        "expectedChecksum",
        "currentChecksum",
        "modificationTime",
    ] {
        assert_eq!(file[key], sidecar[key], "{key}");
    }
}
