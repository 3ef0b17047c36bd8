//! `backstitch doctor`: do the indexes say what the journals say?

use backstitch_engine::{Engine, Options};
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
    let engine = Engine::start(Options::new(args.database.url()?)).await?;
    let diagnosis = engine.doctor(args.mend).await;
    engine.stop().await;
    let diagnosis = diagnosis?;
    for difference in &diagnosis.differences {
        print::line(difference);
    }
    let found = diagnosis.differences.len();
    print::line(format_args!(
        "{} journals read, {found} differences found, {} mended.",
        diagnosis.runs_checked, diagnosis.mended
    ));
    if found > 0 && !args.mend {
        print::line("Run `backstitch doctor --mend` to mend them.");
    }
    Ok(u64::try_from(found).is_ok_and(|found| found <= diagnosis.mended))
}
