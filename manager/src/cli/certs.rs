//! `backing-image-manager certs`: certificates without Kubernetes. It prints what `trust::files` makes and reads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use trust::credential::{Believed, believed};
use trust::{Credential, Identity, Role, files};
use types::{NodeId, report};

use super::Failure;
use super::output::{self, Form};

const DAY: Duration = Duration::from_hours(24);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a certificate authority: ca.crt, which every program gets, and ca.key, which none gets
    #[command(
        after_help = "Do this once for a cluster, on a machine that runs none of its programs:\n\n  \
                      backing-image-manager certs init /root/authority\n\n\
                      Whoever has ca.key can be any program. Keep it offline, with a copy."
    )]
    Init {
        /// Directory of the authority; created if it is missing
        dir: PathBuf,
    },
    /// Issue the certificate of one program: ca.crt, tls.crt and tls.key, for its --certificates
    #[command(
        after_help = "A manager needs the node of its --node-id, and each program gets a directory of its own:\n\n  \
                      backing-image-manager certs issue --ca /root/authority \\\n    \
                      --role manager --node worker-1 --output worker-1\n  \
                      backing-image-manager certs issue --ca /root/authority \\\n    \
                      --role cli --output ~/.backing-image-manager\n\n\
                      The same command renews a certificate in place: a running program reads the\n\
                      new files within 10 s."
    )]
    Issue(IssueArgs),
    /// Show whom a directory's certificate names, until when it is valid, and who is believed; exit
    /// code 1 if others would not believe it now
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// Directory of the authority, made by `certs init`
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// What the program is: controller, manager, node, ui or cli
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// The node of a manager or a node service: the --node-id of the program
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Which one it is, for logs [default: the name of the node, else of this host]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    // Nothing renews it by itself here, and nothing can revoke it: a season is what a person or a cron job keeps
    // up with, and a key that leaks is worthless after it.
    /// Days that it is valid; no longer than the authority
    #[arg(long, value_name = "N", default_value = "90", value_parser = clap::value_parser!(u64).range(1..=1826))]
    days: u64,
    /// Directory for the three files; created if it is missing, files in it are replaced
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Directory of a program, or of an authority
    dir: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

/// What is in a directory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DirectoryView {
    /// `None`: it is the directory of an authority.
    certificate: Option<CertificateView>,
    authorities: Vec<AuthorityView>,
}

/// The certificate of a program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateView {
    identity: String,
    role: &'static str,
    node: Option<String>,
    instance: String,
    not_before: String,
    not_after: String,
    /// Why others would not believe it now.
    problem: Option<String>,
}

/// An authority that is believed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityView {
    name: String,
    not_after: String,
    is_expired: bool,
}

pub(super) fn run(command: Command) -> Result<ExitCode, Failure> {
    let now = SystemTime::now();
    match command {
        Command::Init { dir } => init(&dir, now)?,
        Command::Issue(args) => issue(&args, now)?,
        Command::Show(args) => return show(&args, now),
    }
    Ok(ExitCode::SUCCESS)
}

fn init(dir: &Path, now: SystemTime) -> Result<(), Failure> {
    files::init(dir, now)?;
    let authorities = authorities(dir, now)?;
    Ok(output::json(&authorities[0])?)
}

fn issue(args: &IssueArgs, now: SystemTime) -> Result<(), Failure> {
    if args.role.has_node() && args.node.is_none() {
        return Err(format!(
            "certs issue --role {}: its node is missing; add --node NAME, the --node-id of the program",
            args.role
        )
        .into());
    }
    let instance = match (&args.instance, &args.node) {
        (Some(instance), _) => instance.clone(),
        (None, Some(node)) => node.to_string(),
        (None, None) => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    };
    let identity = Identity::new(args.role, args.node.clone(), &instance)?;
    let life = DAY * u32::try_from(args.days)?;
    let credential = files::issue(&args.ca, &identity, life, &args.output, now)?;
    Ok(output::json(&CertificateView::new(&credential, now))?)
}

fn show(args: &ShowArgs, now: SystemTime) -> Result<ExitCode, Failure> {
    let view = DirectoryView {
        authorities: authorities(&args.dir, now)?,
        certificate: if is_of_authority(&args.dir) {
            None
        } else {
            Some(CertificateView::new(&files::load(&args.dir)?, now))
        },
    };
    if args.output == Form::Table {
        view.print()?;
    } else {
        output::json(&view)?;
    }
    let is_good = match &view.certificate {
        Some(certificate) => certificate.problem.is_none(),
        None => view.authorities.iter().any(|one| !one.is_expired),
    };
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A directory without files of a program: an authority's, or a published bundle.
fn is_of_authority(dir: &Path) -> bool {
    let missing = |name| !dir.join(name).exists();
    missing(files::CERTIFICATE) && missing(files::KEY)
}

fn authorities(dir: &Path, now: SystemTime) -> Result<Vec<AuthorityView>, Failure> {
    let path = dir.join(files::CA_CERTIFICATE);
    let found = believed(&files::read(&path)?)
        .map_err(|error| format!("{}: {}", path.display(), report(&error)))?;
    Ok(found
        .into_iter()
        .map(|one| AuthorityView::new(one, now))
        .collect())
}

impl CertificateView {
    fn new(credential: &Credential, now: SystemTime) -> Self {
        let identity = credential.identity();
        Self {
            identity: identity.to_string(),
            role: identity.role().as_str(),
            node: identity.node().map(NodeId::to_string),
            instance: identity.instance().to_owned(),
            not_before: shown(credential.not_before()),
            not_after: shown(credential.not_after()),
            problem: credential
                .verify(now)
                .err()
                .map(|error| report(&error).to_string()),
        }
    }
}

impl AuthorityView {
    fn new(found: Believed, now: SystemTime) -> Self {
        Self {
            not_after: shown(found.not_after),
            is_expired: found.not_after <= now,
            name: found.name,
        }
    }
}

impl DirectoryView {
    fn print(&self) -> std::io::Result<()> {
        let mut rows = Vec::new();
        if let Some(found) = &self.certificate {
            let state = found.problem.as_deref().unwrap_or("valid");
            rows.push(["certificate", &found.identity, &found.not_after, state].map(str::to_owned));
        }
        for found in &self.authorities {
            let state = if found.is_expired { "expired" } else { "valid" };
            rows.push(["authority", &found.name, &found.not_after, state].map(str::to_owned));
        }
        output::table(["WHAT", "NAME", "VALID UNTIL", "STATE"], &rows)
    }
}

/// A time in RFC 3339, in seconds: certificates have no smaller ones.
fn shown(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
