//! `why PVC`: what a claim waits for, in one sentence with the next step.
//!
//! [`facts`] asks Kubernetes and the managers; [`sentence`] decides, and asks nobody.

mod facts;
mod sentence;

use clap::Args;

use crate::error::Result;
use crate::kubernetes::DRIVER;
use crate::output::{print, tame};
use crate::reach::Reach;

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Name of the PersistentVolumeClaim
    claim: String,
    /// Name of the CSI driver
    #[arg(long, value_name = "NAME", default_value = DRIVER)]
    driver: String,
}

/// Says it; whether the claim waits.
pub(crate) async fn run(reach: &Reach, args: &WhyArgs) -> Result<bool> {
    let facts = facts::gather(reach, &args.claim, &args.driver).await?;
    let verdict = sentence::verdict(&facts);
    print(&format!("{}\n", tame(&verdict.text)))?;
    Ok(verdict.waits)
}
