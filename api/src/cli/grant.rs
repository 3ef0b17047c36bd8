//! `backstitch database`: the role that servers connect as.

use backstitch_saga::Span;
use clap::{Args, Subcommand};

use super::DatabaseArgs;
use crate::print;

/// What to do with the database.
#[derive(Subcommand)]
pub(crate) enum DatabaseVerb {
    /// Give a role the rights that a server needs, and take all others from it
    ///
    /// Run it as the owner of the tables, who runs `backstitch migrate`. The role may then read and write rows; it makes,
    /// changes, drops and truncates nothing, and only adds to the journal and to what people did. A role that is not there
    /// is made, without a password. Later migrations give it the rights to what is new.
    Grant(GrantArgs),
}

/// Which role.
#[derive(Args)]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The role that servers connect as
    #[arg(long, value_name = "ROLE")]
    app_role: String,
    /// How long ended runs are kept at least, whatever --retention a server is started with
    #[arg(long, value_name = "SPAN", conflicts_with = "print")]
    keep_at_least: Option<Span>,
    /// Print the statements instead of executing them; the role must be made by you
    #[arg(long)]
    print: bool,
}

pub(crate) async fn run(verb: DatabaseVerb) -> anyhow::Result<()> {
    let DatabaseVerb::Grant(args) = verb;
    let url = args.database.url()?;
    if args.print {
        print::text(backstitch_engine::grants_of_server(&url, &args.app_role).await?);
        return Ok(());
    }
    let keep = args.keep_at_least.map(Span::duration);
    backstitch_engine::grant_server(&url, &args.app_role, keep).await?;
    print::line(format_args!("The role {} has the rights of a server.", args.app_role));
    Ok(())
}
