//! How a share is mounted: as Longhorn does, at the place where it does.

use std::path::PathBuf;

use super::{Mount, Scheme};

/// Newest first: an old server refuses what it does not know.
const NFS_VERSIONS: [&str; 3] = ["4.2", "4.1", "4.0"];
/// `soft` with 30 s for each try: a server that is away is an error after about a minute, not for ever.
const NFS_OPTIONS: &str = "actimeo=1,soft,timeo=300,retry=2";
const CIFS_OPTIONS: &str = "soft";

/// The mount of a store, if it is one; makes its options canonical.
pub(super) fn of(
    scheme: Scheme,
    host: &str,
    path: &str,
    parameters: &mut Vec<(String, String)>,
) -> Result<Option<Mount>, &'static str> {
    // Dots in a directory's name are fine, but this is where Longhorn looks.
    let directory = host.replace(['.', ':', '[', ']'], "_");
    let point = PathBuf::from(directory).join(path);
    let mount = match scheme {
        Scheme::S3 | Scheme::Azblob | Scheme::Directory => return Ok(None),
        Scheme::Nfs => Mount {
            source: format!("{host}:/{path}"),
            fs_type: "nfs4",
            attempts: match options("nfsOptions", parameters)? {
                Some(options) => vec![options],
                None => NFS_VERSIONS
                    .map(|version| format!("nfsvers={version},{NFS_OPTIONS}"))
                    .to_vec(),
            },
            point,
        },
        Scheme::Cifs => Mount {
            source: format!("//{host}/{path}"),
            fs_type: "cifs",
            attempts: vec![
                options("cifsOptions", parameters)?.unwrap_or_else(|| CIFS_OPTIONS.to_owned()),
            ],
            point,
        },
    };
    Ok(Some(mount))
}

/// The options of this parameter, without empty ones; `None`: there are none.
fn options(
    key: &str,
    parameters: &mut Vec<(String, String)>,
) -> Result<Option<String>, &'static str> {
    let Some(found) = parameters.iter().position(|(name, _)| name == key) else {
        return Ok(None);
    };
    let options: Vec<&str> = parameters[found]
        .1
        .split(',')
        .filter(|option| !option.is_empty())
        .collect();
    for option in &options {
        if option.contains(char::is_whitespace) {
            return Err("an option of its mount contains white space");
        }
        let name = option.split('=').next().unwrap_or_default();
        // They would be seen in the list of processes.
        if [
            "user",
            "username",
            "pass",
            "password",
            "password2",
            "cred",
            "credentials",
        ]
        .contains(&name)
        {
            return Err(
                "an option of its mount is a credential: it belongs into the Secret of the target",
            );
        }
    }
    let options = options.join(",");
    if options.is_empty() {
        parameters.remove(found);
        return Ok(None);
    }
    parameters[found].1.clone_from(&options);
    Ok(Some(options))
}
