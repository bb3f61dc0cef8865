//! From a text to the parts of an address, with what shells and YAML do to it undone.

use std::fmt::Write;

use super::Scheme;
use crate::Error;

const LENGTH_MAX: usize = 4096;

/// What an address consists of. Percent signs are decoded, each part is what its scheme allows.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) scheme: Scheme,
    pub(super) bucket: String,
    pub(super) host: String,
    pub(super) path: String,
    /// In the order of their keys, each once.
    pub(super) parameters: Vec<(String, String)>,
}

/// Parameters that mean something here.
const KNOWN: [&str; 5] = [
    "backup",
    "volume",
    "backingImage",
    "nfsOptions",
    "cifsOptions",
];
/// Those that may be repeated: their values are one list.
const LISTS: [&str; 2] = ["nfsOptions", "cifsOptions"];

impl Parts {
    pub(super) fn of(text: &str) -> Result<Self, &'static str> {
        if text.len() > LENGTH_MAX {
            return Err("it has more than 4096 characters");
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("it contains white space or a control character");
        }
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        if rest.contains('#') {
            return Err("it has a fragment ('#')");
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The path begins at the first slash, which belongs to it.
        let slash = place.find('/');
        let (authority, path) = place.split_at(slash.unwrap_or(place.len()));
        let (scheme, bucket, host) = match scheme {
            "s3" => bucket_and_host(Scheme::S3, authority)?,
            "azblob" => bucket_and_host(Scheme::Azblob, authority)?,
            "nfs" => (Scheme::Nfs, "", nfs_host(authority)?),
            "cifs" if !authority.contains(':') && is_host(authority) => {
                (Scheme::Cifs, "", authority)
            }
            "cifs" => return Err("the name of the server is missing or not valid"),
            "vfs" if authority.is_empty() => (Scheme::Directory, "", ""),
            "vfs" => {
                return Err("it has a host: a directory is written with three slashes, vfs:///dir");
            }
            _ => return Err("its scheme is none of s3, nfs, cifs, azblob and vfs"),
        };
        let path = path_of(path)?;
        match scheme {
            Scheme::S3 | Scheme::Azblob if slash.is_none() => {
                return Err("the path is missing: write at least a slash at the end");
            }
            Scheme::Directory if path.is_empty() => return Err("the directory is missing"),
            Scheme::Cifs if path.is_empty() => return Err("the share is missing"),
            Scheme::Nfs if slash.is_none() => return Err("the exported directory is missing"),
            _ => {}
        }
        Ok(Self {
            scheme,
            bucket: bucket.to_owned(),
            host: host.to_owned(),
            path,
            parameters: parameters(query)?,
        })
    }
}

fn bucket_and_host(scheme: Scheme, authority: &str) -> Result<(Scheme, &str, &str), &'static str> {
    let (bucket, host) = match authority.split_once('@') {
        Some((_, "")) => return Err("nothing follows the '@'"),
        Some(both) => both,
        None => (authority, ""),
    };
    if bucket.contains(':') {
        return Err("it contains a password: credentials belong into the Secret of the target");
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if bucket.is_empty() || !bucket.bytes().all(is_name) {
        return Err("the bucket or container is missing or not valid: it stands before the '@'");
    }
    if !host.is_empty() && !is_host(host) {
        return Err("what follows the '@' is no region or endpoint");
    }
    Ok((scheme, bucket, host))
}

/// The host of `host:` or `[address]:`.
fn nfs_host(authority: &str) -> Result<&str, &'static str> {
    let host = authority
        .strip_suffix(':')
        .ok_or("a colon must follow the server: nfs://server:/export/dir")?;
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let valid = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    if valid {
        Ok(host)
    } else {
        Err("the name of the server is missing or not valid")
    }
}

fn is_host(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= 253 && text.bytes().all(is_name)
}

/// The names of a path, joined by single slashes.
fn path_of(text: &str) -> Result<String, &'static str> {
    let decoded = decoded(text, false)?;
    let names: Vec<&str> = decoded.split('/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| matches!(*name, "." | "..")) {
        return Err("its path contains . or ..");
    }
    if names.iter().any(|name| name.len() > 255) {
        return Err("its path contains a name of more than 255 bytes");
    }
    Ok(names.join("/"))
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for pair in unescaped(query).split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("a parameter has no value")?;
        let (key, value) = (decoded(key, true)?, decoded(value, true)?);
        // What belongs into a Secret would be shown with the address.
        let lower = key.to_ascii_lowercase();
        let secret = ["pass", "secret", "key", "token", "sig", "user"];
        if secret.iter().any(|word| lower.contains(word)) {
            return Err(
                "a parameter looks like a credential: it belongs into the Secret of the target",
            );
        }
        match parameters.iter_mut().find(|(known, _)| *known == key) {
            Some((_, list)) if LISTS.contains(&key.as_str()) => {
                list.push(',');
                list.push_str(&value);
            }
            Some(_) => return Err("a parameter is there twice"),
            None => parameters.push((key, value)),
        }
    }
    parameters.sort();
    Ok(parameters)
}

/// `&` where JSON, a shell or YAML has made something else of it, in front of what is a parameter.
fn unescaped(query: &str) -> String {
    let mut text = query.replace("\\u0026", "&");
    for key in KNOWN {
        text = text.replace(&format!("u0026{key}="), &format!("&{key}="));
    }
    text
}

/// `text` with its percent signs decoded, and in a query the plus signs.
fn decoded(text: &str, is_query: bool) -> Result<String, &'static str> {
    const BAD: &str = "a percent sign is not followed by two hexadecimal digits of UTF-8";
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = digit(bytes.next()).ok_or(BAD)?;
                let low = digit(bytes.next()).ok_or(BAD)?;
                u8::try_from(high * 16 + low).map_err(|_| BAD)?
            }
            b'+' if is_query => b' ',
            byte => byte,
        });
    }
    let decoded = String::from_utf8(decoded).map_err(|_| BAD)?;
    if decoded.contains(char::is_control) {
        return Err("it contains a control character");
    }
    Ok(decoded)
}

/// A path as it stands in an address.
pub(super) fn path_text(path: &str) -> String {
    encoded(path, b"/-._~!$'()*,:@=&+;")
}

/// A key or value as it stands in a query.
pub(super) fn query_text(text: &str) -> String {
    encoded(text, b"/-._~!$'()*,:@=")
}

fn encoded(text: &str, plain: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// An error about `text`, of which nothing is shown that may be a secret.
pub(super) fn refused(text: &str, why: &'static str) -> Error {
    let place = text.split('?').next().unwrap_or_default();
    let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let text = if user.contains(':') {
        format!("{scheme}://…")
    } else {
        place.to_owned()
    };
    Error::Address {
        text: types::shown(&text),
        why,
    }
}
