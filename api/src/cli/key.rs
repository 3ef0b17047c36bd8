//! `backstitch key`: credentials, made where the database is. The first admin is made here.

use anyhow::ensure;
use backstitch_engine::{Engine, Options, Role};
use clap::{Args, Subcommand, ValueEnum};

use super::DatabaseArgs;
use crate::check::is_slug;
use crate::print;

/// What to do with credentials.
#[derive(Subcommand)]
pub(crate) enum KeyVerb {
    /// Make a credential and print its secret, once
    Create {
        #[command(flatten)]
        which: Which,
        /// What it may do
        #[arg(long)]
        role: RoleName,
    },
    /// Withdraw a credential
    Revoke {
        #[command(flatten)]
        which: Which,
    },
}

/// Which credential.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The namespace it is good for
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Its name, as it will stand in histories
    #[arg(long)]
    name: String,
}

/// What a credential may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleName {
    /// Everything, including credentials
    Admin,
    /// Starts runs and acts on them, and reads
    Operator,
    /// Starts runs and reads
    Starter,
    /// Claims and completes tasks, registers workflows, and reads
    Worker,
    /// Reads
    Viewer,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Role {
        match name {
            RoleName::Admin => Role::Admin,
            RoleName::Operator => Role::Operator,
            RoleName::Starter => Role::Starter,
            RoleName::Worker => Role::Worker,
            RoleName::Viewer => Role::Viewer,
        }
    }
}

pub(crate) async fn run(verb: KeyVerb) -> anyhow::Result<()> {
    match verb {
        KeyVerb::Create { which, role } => {
            let engine = connect(&which).await?;
            let made = engine.create_credential(&which.namespace, &which.name, role.into()).await;
            engine.stop().await;
            print::line(made?);
            print::note("This secret is not shown again. Send it as Authorization: Bearer SECRET.");
        }
        KeyVerb::Revoke { which } => {
            let engine = connect(&which).await?;
            let revoked = engine.revoke_credential(&which.namespace, &which.name).await;
            engine.stop().await;
            revoked?;
            print::note("Revoked. Running servers may let it pass for a few seconds more.");
        }
    }
    Ok(())
}

async fn connect(which: &Which) -> anyhow::Result<Engine> {
    for name in [&which.namespace, &which.name] {
        ensure!(is_slug(name), "'{name}' must be [a-z0-9][a-z0-9._-]*, at most 100 characters");
    }
    Ok(Engine::start(Options::new(which.database.url()?)).await?)
}
