//! The command line for people and scripts.
//!
//! Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 it
//! failed, 2 the command line is wrong.

mod build;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use types::{ByteSize, report};

use crate::error::{Error, Result, io};
use crate::location::Location;
use crate::request::{Access, FileSystem, InspectRequest, LayerCompression, Login, Trust};
use crate::{build as builder, inspect};

/// Builds and inspects base images: disk images inside container images.
#[derive(Debug, Parser)]
#[command(name = "base-image", version, max_term_width = 100)]
struct Program {
    /// Messages to log: error, warn, info, debug, or a filter per module as in tracing
    #[arg(
        long,
        global = true,
        env = "LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Build a base image from a directory or a disk image, without root and without loop devices
    Build(BuildArgs),
    /// Show the content of a base image
    Inspect(InspectArgs),
}

/// The options of `base-image build`.
#[derive(Debug, Clone, Args)]
struct BuildArgs {
    /// Directory whose contents become the file system; or a qcow2 or raw disk image to package
    /// unchanged; or a VMDK, VHD, VHDX, VDI, OVA or block device for qemu-img to read
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// File system to create; `none` creates an empty disk [default: ext4 for a directory]
    #[arg(long, value_enum)]
    fs: Option<FileSystem>,
    /// Virtual size of the disk, for example 64Mi [default: just large enough for the directory]
    #[arg(long, value_parser = types::parse_quantity)]
    size: Option<ByteSize>,
    /// Format of the disk image in the container image [default: qcow2, or that of the disk image]
    #[arg(long, value_enum)]
    format: Option<DiskFormat>,
    /// Compress the clusters of the qcow2 image, which makes it smaller but slower to import
    #[arg(long)]
    compress: bool,
    /// Label of the file system
    #[arg(long)]
    label: Option<String>,
    /// UUID of the file system [default: derived from the input, so that the same input gives the
    /// same UUID]
    #[arg(long)]
    uuid: Option<String>,
    /// Name of the file in /base_image/ [default: derived from the name of --from]
    #[arg(long, value_name = "FILE")]
    name: Option<String>,
    /// Output: oci-layout:DIR, oci-archive:FILE, docker-archive:FILE or docker://host/name:tag; may
    /// be given several times
    #[arg(long, required = true, value_name = "PLACE")]
    output: Vec<String>,
    /// Name of the image in the layout or archive, for example example:v1
    #[arg(long, value_name = "NAME:TAG")]
    tag: Option<String>,
    /// Platform in the config of the image; the data does not depend on it
    #[arg(long, default_value = "linux/amd64", value_name = "OS/ARCH")]
    platform: String,
    /// Compression of the layer; the layer of a docker-archive is never compressed, for old
    /// versions of Docker
    #[arg(long, value_enum, default_value = "zstd")]
    layer_compression: LayerCompression,
    /// Push in pieces of at most this size, for a proxy that limits the size of requests [default:
    /// in one request, then in pieces if the registry rejects it as too large]
    #[arg(long, value_parser = types::parse_quantity, value_name = "SIZE")]
    chunk_size: Option<ByteSize>,
    /// Access to the registry.
    #[command(flatten)]
    registry: RegistryArgs,
}

/// The options of `base-image inspect`.
#[derive(Debug, Clone, Args)]
struct InspectArgs {
    /// docker://host/name:tag, oci-layout:DIR, oci-archive:FILE, docker-archive:FILE or file:FILE
    reference: String,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputForm,
    /// Image to select from a layout or archive with several images
    #[arg(long, value_name = "NAME:TAG")]
    tag: Option<String>,
    /// Platform to select from a multi-platform image
    #[arg(long, default_value = "linux/amd64", value_name = "OS/ARCH")]
    platform: String,
    /// Access to the registry.
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Access to a registry.
#[derive(Debug, Clone, Default, Args)]
struct RegistryArgs {
    /// Credentials file in the format of `docker login` [default: $DOCKER_CONFIG/config.json, then
    /// ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// User name for the registry, instead of a credentials file
    #[arg(long, conflicts_with = "auth_file", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// PEM file of certificate authorities to trust in addition to those of the system
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Allow plain HTTP and unverified certificates for this registry
    #[arg(long)]
    insecure: bool,
    /// Registries file, as for the daemon (certificate authorities, mirrors, insecure hosts)
    #[arg(long, value_name = "FILE")]
    registry_config: Option<PathBuf>,
}

/// The formats of the disk image inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiskFormat {
    /// QEMU's format, version 3
    Qcow2,
    /// The bytes of the disk
    Raw,
}

/// The forms in which `inspect` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputForm {
    /// Lines for people
    Table,
    /// One JSON object
    Json,
}

impl InspectArgs {
    fn check(self) -> Result<InspectRequest> {
        Ok(InspectRequest {
            place: Location::parse("the image", &self.reference)?,
            reference: self.reference,
            tag: self.tag,
            platform: self.platform.parse().map_err(|error| Error::Option {
                option: "--platform",
                problem: format!("is not valid: {error}"),
            })?,
            access: self.registry.access()?,
            json: self.output == OutputForm::Json,
        })
    }
}

impl RegistryArgs {
    fn access(&self) -> Result<Access> {
        let trust = match &self.registry_config {
            Some(_) if self.insecure || self.ca_file.is_some() => {
                return Err(Error::Option {
                    option: "--registry-config",
                    problem: "replaces --insecure and --ca-file; use one or the other".into(),
                });
            }
            Some(path) => Trust::Config(path.clone()),
            None => Trust::Registry {
                ca_file: self.ca_file.clone(),
                insecure: self.insecure,
            },
        };
        let login = match (&self.username, &self.auth_file) {
            (Some(user), _) => Login::User(user.clone()),
            (None, Some(path)) => Login::File(path.clone()),
            (None, None) => Login::Docker,
        };
        Ok(Access { login, trust })
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let program = Program::parse();
    let filter = EnvFilter::try_new(&program.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match execute(program.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("base-image: {}\n", report(&error));
            // With nowhere to write to, the exit code is all there is to say.
            let _ = std::io::stderr().write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    let text = match command {
        Command::Build(args) => {
            let mut text = String::new();
            for (place, digest) in builder::run(&args.check()?)? {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{digest} {place}");
            }
            text
        }
        Command::Inspect(args) => inspect::run(&args.check()?)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `base-image inspect … | head` ends the reader early; that is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(io("write to", "standard output")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        super::Program::command().debug_assert();
    }
}
