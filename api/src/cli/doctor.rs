//! `backstitch doctor`: do the indexes say what the journals say?

use std::time::Duration;

use backstitch_engine::{Diagnosis, Engine, Options};
use clap::Args;

use super::DatabaseArgs;
use crate::print;

/// What to do about differences.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Write into the indexes what the journals say
    #[arg(long)]
    mend: bool,
}

/// `false` when differences are left.
pub(crate) async fn run(args: &DoctorArgs) -> anyhow::Result<bool> {
    let mut options = Options::new(args.database.url()?);
    // What is found is told first, and mended only when that is asked for.
    options.tuning.check_every = Duration::MAX;
    let engine = Engine::start(options).await?;
    let diagnosis = engine.doctor(args.mend).await;
    engine.stop().await;
    let diagnosis = diagnosis?;
    for difference in &diagnosis.differences {
        print::line(difference);
    }
    let Diagnosis { runs_checked, runs_wrong, differences, mended } = diagnosis;
    print::line(format_args!(
        "{} read, {} found in {}, {} mended.",
        print::counted(runs_checked, "journal"),
        print::counted(differences.len(), "difference"),
        print::counted(runs_wrong, "run"),
        print::counted(mended, "run")
    ));
    if runs_wrong > 0 && !args.mend {
        print::line("Run `backstitch doctor --mend` to write what the journals say.");
    }
    Ok(runs_wrong <= mended)
}
