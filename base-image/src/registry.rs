//! A registry as the builder reaches it, in the terms of the `fetch` crate.

use std::fmt::Write as _;
use std::io::{BufRead, Read};
use std::path::PathBuf;

use bytes::Bytes;
use fetch::registry::Client;
use fetch::{AddressPolicy, Config, Credentials, Network, Proxies, Reference, Tuning};
use types::ByteSize;

use super::error::{Error, Result, io};
use super::manifest::ContainerImage;
use super::progress::Progress;
use super::request::{Access, Login, Trust};

/// The longest file of credentials or registries that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The longest password, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// A registry that can be talked to.
pub(super) struct Registry {
    pub(super) client: Client,
    pub(super) credentials: Credentials,
    runtime: tokio::runtime::Runtime,
}

impl Registry {
    /// Reads the configuration for the registry of `reference`.
    pub(super) fn new(access: &Access, reference: &Reference) -> Result<Self> {
        let config = Config::from_toml(&config(&access.trust, reference)?)
            .map_err(failed("use --registry-config"))?;
        // Whoever runs a command line may reach what this machine reaches.
        let network = Network::with_proxies(
            config,
            AddressPolicy::unrestricted(),
            Tuning::default(),
            Proxies::of_environment(),
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(io("start", "the network runtime"))?;
        let credentials = credentials(&access.login, reference)?;
        Ok(Self {
            client: Client::new(network),
            credentials,
            runtime,
        })
    }

    /// Waits for something that the network does.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// For streams that the network fills.
    pub(super) fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Pushes an image to `reference`.
    pub(super) fn push(
        &self,
        reference: &Reference,
        image: &ContainerImage,
        chunk_size: Option<ByteSize>,
        progress: &Progress,
    ) -> Result<()> {
        progress.say(&format!(
            "pushing {} bytes to {reference}",
            image.layer.size
        ));
        let pusher = self.client.pusher(reference, &self.credentials);
        let pusher = match chunk_size {
            Some(size) => pusher.in_pieces_of(size.0),
            None => pusher,
        };
        self.wait(async {
            let layer = &image.layer;
            pusher.blob(&layer.digest, layer.size, &layer.path).await?;
            let config = Bytes::from(image.config.clone());
            pusher.blob_bytes(&image.config_digest(), config).await?;
            let manifest = Bytes::from(image.manifest.clone());
            pusher.manifest(image::oci::OCI_MANIFEST, manifest).await
        })
        .map(drop)
        .map_err(failed("push the image"))
    }
}

fn failed(what: &'static str) -> impl FnOnce(fetch::Error) -> Error {
    move |source| Error::Fetch { what, source }
}

/// The text of the registries' configuration: the file, or what was asked for this registry.
fn config(trust: &Trust, reference: &Reference) -> Result<String> {
    let mut text = String::new();
    let (ca_file, insecure) = match trust {
        Trust::Registry { ca_file, insecure } => (ca_file, insecure),
        Trust::Config(path) => {
            let file = std::fs::File::open(path).map_err(io("open", path))?;
            file.take(MAX_FILE)
                .read_to_string(&mut text)
                .map_err(io("read", path))?;
            return Ok(text);
        }
    };
    // A reference's host holds nothing that a TOML string would have to escape.
    let _ = writeln!(
        text,
        "[[registry]]\nlocation = \"{}\"",
        reference.registry()
    );
    let _ = writeln!(text, "insecure = {insecure}");
    if let Some(path) = ca_file {
        let path = path.canonicalize().map_err(io("open", path))?;
        let path = path.to_str().ok_or_else(|| Error::Option {
            option: "--ca-file",
            problem: "has a path that is not UTF-8".into(),
        })?;
        let _ = writeln!(text, "ca-file = {}", toml_string(path));
    }
    Ok(text)
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Credentials for the login; where Docker keeps them, none is fine.
fn credentials(login: &Login, reference: &Reference) -> Result<Credentials> {
    let path = match login {
        Login::User(user) => {
            let mut password = String::new();
            let read = std::io::stdin()
                .lock()
                .take(MAX_PASSWORD)
                .read_line(&mut password);
            read.map_err(io("read the password from", "standard input"))?;
            let password = password.trim_end_matches(['\r', '\n']);
            return Ok(Credentials::anonymous().with_password(
                reference.registry(),
                user,
                password,
            ));
        }
        Login::File(path) => path.clone(),
        Login::Docker => match default_auth_file() {
            Some(path) if path.exists() => path,
            _ => return Ok(Credentials::anonymous()),
        },
    };
    let file = std::fs::File::open(&path).map_err(io("open", &path))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read", &path))?;
    Credentials::from_docker_config(&bytes).map_err(failed("use the credentials file"))
}

/// Where `docker login` writes.
fn default_auth_file() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_can_be_in_the_configuration() {
        let path = "/a \"b\\c\u{7}/ü";
        let text = format!("x = {}", toml_string(path));
        // The parser of the configuration is the judge: an unknown key, not bad TOML.
        let error = Config::from_toml(&text).unwrap_err();
        assert!(types::report(&error).to_string().contains('x'), "{error}");
    }
}
