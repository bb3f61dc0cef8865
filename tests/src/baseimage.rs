//! Base images for tests: the files in them, the disk image, the container image around it.

use std::path::{Path, PathBuf};

use crate::{Registry, Sandbox, command, programs};

/// The path of the file that the original documentation fetches, in the base image.
pub const WIZARD: &str = "guests/hd/party-wizard.gif";

/// What is in that file: an animation of 64 × 64 pixels.
pub const PARTY_WIZARD: &[u8] = include_bytes!("../fixtures/party-wizard.gif");

/// A directory with the documentation's web page: `index.html` and the wizard.
pub fn web_page(sandbox: &Sandbox) -> PathBuf {
    sandbox.write(
        "web/index.html",
        "<h1>Hello from a base image</h1><img src=guests/hd/party-wizard.gif>\n",
    );
    sandbox.write(format!("web/{WIZARD}"), PARTY_WIZARD);
    sandbox.path("web")
}

/// What to build; the rest are the builder's own defaults.
#[derive(Debug, Clone)]
pub struct Build<'a> {
    /// Directory or disk image; none: an empty disk.
    pub from: Option<&'a Path>,
    /// ext4, xfs, btrfs, none.
    pub fs: Option<&'a str>,
    /// A quantity; none: the builder's choice.
    pub size: Option<&'a str>,
    /// More options.
    pub options: &'a [&'a str],
}

impl Build<'_> {
    /// Builds it into an OCI layout, an archive … (`oci-layout:DIR`).
    #[track_caller]
    pub fn into(&self, output: &str) {
        self.run(output, &[]);
    }

    /// Builds it and pushes it; gives the reference.
    #[track_caller]
    pub fn push(&self, registry: &Registry, name_and_tag: &str) -> String {
        let reference = registry.reference(name_and_tag);
        let (ca, config) = (
            registry.ca.display().to_string(),
            registry.docker_config.display().to_string(),
        );
        self.run(
            &format!("docker://{reference}"),
            &["--ca-file", &ca, "--auth-file", &config],
        );
        reference
    }

    #[track_caller]
    fn run(&self, output: &str, more: &[&str]) {
        let mut arguments: Vec<&str> = vec!["build", "--output", output];
        let from = self.from.map(|path| path.display().to_string());
        let options = [
            ("--from", from.as_deref()),
            ("--fs", self.fs),
            ("--size", self.size),
        ];
        for (option, value) in options {
            arguments.extend(value.into_iter().flat_map(|value| [option, value]));
        }
        arguments.extend(self.options.iter().chain(more));
        command::run(&programs::base_image().display().to_string(), arguments);
    }
}

/// A raw disk image with a file system that holds `web_page`, made by other people's tools.
pub fn raw_ext4(sandbox: &Sandbox, name: &str, size: u64) -> PathBuf {
    let page = web_page(sandbox);
    let image = sandbox.path(name);
    let make = || std::fs::File::create(&image)?.set_len(size);
    make().unwrap_or_else(|error| panic!("make {}: {error}", image.display()));
    let from = ["-q", "-F", "-d"].map(AsRef::as_ref);
    command::run(
        "mkfs.ext4",
        from.into_iter()
            .chain([page.as_os_str(), image.as_os_str()]),
    );
    image
}
