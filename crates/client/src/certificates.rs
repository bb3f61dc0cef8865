//! Asking the controller for the certificate of this program.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::trust::v1 as wire;
use proto::trust::v1::certificates_client::CertificatesClient;
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use trust::held::{H2, connect_unproven};
use trust::{Error, Expected, Issued, Issuer, Result, Role};
use types::report;
use zeroize::Zeroizing;

/// The time to connect and be answered: the controller asks the Kubernetes API meanwhile.
const DEADLINE: Duration = Duration::from_secs(20);
/// A token of a ServiceAccount has one or two thousand bytes.
const TOKEN_MAX: u64 = 16 << 10;
/// A chain and a bundle of a few certificates.
const ANSWER_MAX: usize = 512 << 10;

/// The controller as the issuer of certificates.
#[derive(Debug, Clone)]
pub struct Authority {
    address: String,
    token: Token,
}

/// The token that proves who asks.
#[derive(Clone)]
enum Token {
    /// A file, read for each certificate.
    File(PathBuf),
    /// One that is in memory alone.
    Given(Arc<Zeroizing<String>>),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Given(_) => f.write_str("(given)"),
        }
    }
}

impl Authority {
    /// The controller at `HOST:PORT`; `token` is the file with the token of our ServiceAccount, which the kubelet
    /// replaces from time to time.
    pub const fn new(address: String, token: PathBuf) -> Self {
        let token = Token::File(token);
        Self { address, token }
    }

    /// The same with a token that was just made: no file has it.
    pub fn with_token(address: String, token: Zeroizing<String>) -> Self {
        let token = Token::Given(Arc::new(token));
        Self { address, token }
    }

    fn failed(&self, why: String) -> Error {
        Error::NotIssued {
            from: format!("the controller at {}", self.address),
            why,
        }
    }

    async fn channel(&self, roots_pem: &str) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| self.failed(error.to_string()))?;
        let (address, roots) = (self.address.clone(), roots_pem.to_owned());
        let connect = tower::service_fn(move |_| {
            let (address, roots) = (address.clone(), roots.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let expected = Expected::role(Role::Controller);
                let (stream, _) = connect_unproven(&roots, stream, &expected, H2).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let connected = endpoint.connect_with_connector(connect).await;
        connected.map_err(|error| self.failed(report(&error).to_string()))
    }

    async fn ask(&self, csr_pem: &str, roots_pem: &str) -> Result<Issued> {
        let token = match &self.token {
            Token::File(path) => bearer(path).await?,
            Token::Given(token) => header(&Zeroizing::new(format!("Bearer {}", token.trim())))
                .ok_or_else(|| self.failed("what was given is no token".to_owned()))?,
        };
        let mut request = tonic::Request::new(wire::IssueCertificateRequest {
            csr_pem: csr_pem.to_owned(),
        });
        request.metadata_mut().insert("authorization", token);
        let mut client = CertificatesClient::new(self.channel(roots_pem).await?)
            .max_decoding_message_size(ANSWER_MAX);
        let issued = client.issue_certificate(request).await;
        let issued = issued.map_err(|status| self.failed(status.message().to_owned()))?;
        let issued = issued.into_inner();
        Ok(Issued {
            chain_pem: issued.chain_pem,
            bundle_pem: issued.bundle_pem,
        })
    }
}

impl Issuer for Authority {
    async fn issue(&self, csr_pem: &str, roots_pem: &str) -> Result<Issued> {
        match tokio::time::timeout(DEADLINE, self.ask(csr_pem, roots_pem)).await {
            Ok(issued) => issued,
            Err(_) => Err(self.failed(format!("it did not answer within {DEADLINE:?}"))),
        }
    }
}

/// The value of the header that shows a token; no log prints it.
async fn bearer(path: &Path) -> Result<MetadataValue<Ascii>> {
    use tokio::io::AsyncReadExt as _;
    let failed = |why: String| Error::File {
        path: path.to_owned(),
        why,
    };
    let mut text = String::from("Bearer ");
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|error| failed(format!("the token cannot be read: {error}")))?;
    let read = file.take(TOKEN_MAX + 1).read_to_string(&mut text).await;
    let read = read.map_err(|error| failed(format!("the token cannot be read: {error}")))?;
    if read as u64 > TOKEN_MAX {
        return Err(failed("it is too large for a token".to_owned()));
    }
    header(text.trim_end()).ok_or_else(|| failed("it is no token".to_owned()))
}

/// A header that no log prints.
fn header(text: &str) -> Option<MetadataValue<Ascii>> {
    let mut value = MetadataValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
