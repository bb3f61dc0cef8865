//! The pull secret of a volume: the credentials for the registry of its base image.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::parameters::Why;

/// A Docker config.json for dozens of registries is smaller; Kubernetes itself allows 1 MiB.
const SECRETS_BYTES: usize = 64 << 10;
/// The key of a Kubernetes secret of type `kubernetes.io/dockerconfigjson`.
const DOCKER_CONFIG_JSON: &str = ".dockerconfigjson";
/// What `docker login` calls the default registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A Docker config.json. Its `Debug` tells nothing of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PullSecret(Vec<u8>);

impl std::fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PullSecret(…)")
    }
}

impl PullSecret {
    /// Takes the secrets of a request: `.dockerconfigjson`, or `username` and `password` for the
    /// registry of `base_image`. Other keys belong to somebody else.
    ///
    /// # Errors
    /// What is wrong with the secrets, without a word of them.
    pub fn parse(secrets: &HashMap<String, String>, base_image: Option<&str>) -> Result<Self, Why> {
        let bytes: usize = secrets
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if bytes > SECRETS_BYTES {
            return Err("they hold more than 64 KiB");
        }
        if let Some(config) = secrets.get(DOCKER_CONFIG_JSON) {
            return Ok(Self(config.clone().into_bytes()));
        }
        let (username, password) = (secrets.get("username"), secrets.get("password"));
        match (username, password, base_image) {
            (Some(username), Some(password), Some(image)) => {
                let registry = registry(image);
                let auth = STANDARD.encode(format!("{username}:{password}"));
                let config = serde_json::json!({ "auths": { registry: { "auth": auth } } });
                Ok(Self(config.to_string().into_bytes()))
            }
            (Some(_), None, _) | (None, Some(_), _) => {
                Err("a pull secret needs both username and password, or .dockerconfigjson")
            }
            _ => Ok(Self::default()),
        }
    }

    /// The bytes, for the manager. Empty: there is no secret.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The registry in a reference, by Docker's rule: the first component is a host when it looks like
/// one.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)], image: &str) -> Result<String, Why> {
        let map = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let secret = PullSecret::parse(&map.collect(), Some(image))?;
        Ok(String::from_utf8(secret.into_bytes()).unwrap())
    }

    #[test]
    fn a_name_and_a_password_become_a_docker_config() {
        let pair = [("username", "me"), ("password", "pa:ss\"")];
        for (image, registry) in [
            ("127.0.0.1:5000/base:1", "127.0.0.1:5000"),
            ("registry.example/a/b", "registry.example"),
            ("localhost/a", "localhost"),
            ("rancher/longhorn-test:baseimage-ext4", DOCKER_HUB),
            ("busybox", DOCKER_HUB),
        ] {
            let config: serde_json::Value =
                serde_json::from_str(&config(&pair, image).unwrap()).unwrap();
            let auth = config["auths"][registry]["auth"].as_str().unwrap();
            assert_eq!(STANDARD.decode(auth).unwrap(), b"me:pa:ss\"", "{image}");
        }
    }

    #[test]
    fn a_docker_config_passes_as_it_is() {
        let pairs = [(".dockerconfigjson", "{\"auths\":{}}"), ("other", "x")];
        assert_eq!(config(&pairs, "a").unwrap(), "{\"auths\":{}}");
        assert_eq!(config(&[("other", "x")], "a").unwrap(), "");
    }

    #[test]
    fn half_a_secret_is_refused_without_repeating_it() {
        let error = config(&[("password", "hunter2")], "a").err().unwrap();
        assert!(!error.to_string().contains("hunter2"));
    }
}
