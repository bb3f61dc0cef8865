//! Asks a data source for the file that it prepared.

use std::time::Duration;

use fetch::AddressPolicy;
use serde::Deserialize;

use super::{FileInfo, plain_http};
use crate::error::{Error, Result};

/// The time for one question, as Longhorn's own client allows.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const ANSWER_MAX: usize = 1 << 20;

/// A file as a data source shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct DataSourceInfo {
    #[serde(default, rename = "sourceType")]
    pub source_type: String,
    #[serde(flatten)]
    pub file: FileInfo,
}

/// A client of one data source. It never goes through a proxy: data sources are in the cluster.
#[derive(Debug)]
pub struct DataSourceClient {
    address: String,
    http: reqwest::Client,
}

impl DataSourceClient {
    /// A client of the data source at `address`, `host:port`, if `policy` lets it be connected to.
    pub async fn new(address: &str, policy: &AddressPolicy) -> Result<Self> {
        let http = plain_http::client().timeout(TIMEOUT).build();
        let address = address.strip_prefix("http://").unwrap_or(address);
        let address = policy.resolve_one(address).await?.to_string();
        match http {
            Ok(http) => Ok(Self { address, http }),
            Err(error) => Err(Error::Peer {
                what: error.to_string(),
                address,
            }),
        }
    }

    /// The file as it is now.
    pub async fn get(&self) -> Result<DataSourceInfo> {
        let answer = self.ask(self.http.get(self.url("file"))).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| self.failed(format!("this is not a data source: {error}")))
    }

    /// Tells the data source that its file is taken over: it lets go of it.
    pub async fn transfer(&self) -> Result<()> {
        let request = self.http.post(self.url("file?action=transfer"));
        self.ask(request).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v1/{path}", self.address)
    }

    fn failed(&self, what: String) -> Error {
        Error::Peer {
            address: self.address.clone(),
            what,
        }
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
        let unreachable = |error: reqwest::Error| self.failed(types::report(&error).to_string());
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if answer.len() + piece.len() > ANSWER_MAX {
                return Err(self.failed(format!("it answered more than {ANSWER_MAX} bytes")));
            }
            answer.extend_from_slice(&piece);
        }
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&answer)
                .trim()
                .chars()
                .take(512)
                .collect();
            return Err(self.failed(format!("it answered {status}: {text}")));
        }
        Ok(answer)
    }
}
