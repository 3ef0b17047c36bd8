//! A server with credentials, and two namespaces on a database of their own for each attack.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::Command;

use super::wire::{Wire, request};
use crate::stage::{Engine, Ground, ROLE};

/// The namespace that attacks.
pub(super) const ATTACKER: &str = "alpha";
/// The namespace that must not notice.
pub(super) const VICTIM: &str = "beta";
/// The database in which the credentials are made; each attack has a copy.
const TEMPLATE: &str = "attacks";

/// The secrets of a namespace's credentials, one for each role.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Secrets {
    /// Of an admin.
    pub(super) admin: String,
    /// Of an operator.
    pub(super) operator: String,
    /// Of a starter.
    pub(super) starter: String,
    /// Of a worker.
    pub(super) worker: String,
    /// Of a viewer.
    pub(super) viewer: String,
}

/// The parts that are set up once.
pub(super) struct Scene {
    /// The secrets of the attacker.
    pub(super) attacker: Secrets,
    /// The secrets of the victim.
    pub(super) victim: Secrets,
}

impl Scene {
    /// Makes the credentials.
    ///
    /// # Errors
    /// When the database or a server does not start.
    pub(super) async fn set_up(ground: &Ground, program: Option<&Path>) -> anyhow::Result<Scene> {
        let made = ground.database().await?;
        let url = ground.url(&made, None)?;
        let own = std::env::current_exe()?;
        let program = program.unwrap_or(&own);
        let mut admins = Vec::new();
        for namespace in [ATTACKER, VICTIM] {
            admins.push(first_admin(program, &url, namespace).await?);
        }
        let mut engine = engine(ground, "setup", &url)?;
        engine.start().await?;
        let address: SocketAddr = address_of(&engine)?;
        let mut all = Vec::new();
        for admin in admins {
            all.push(secrets(address, admin).await?);
        }
        engine.stop().await;
        ground.copy(TEMPLATE, &made).await?;
        ground.drop_database(&made).await?;
        let [attacker, victim] = all.try_into().ok().context("two namespaces")?;
        Ok(Scene { attacker, victim })
    }

    /// Returns a running server on a fresh database with these credentials; the name of the database comes with it.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn server(
        &self,
        ground: &Ground,
        name: &str,
    ) -> anyhow::Result<(Engine, String)> {
        let database = format!("attack_{}", name.replace('-', "_").to_lowercase());
        ground.copy(&database, TEMPLATE).await?;
        let mut engine = engine(ground, name, &ground.url(&database, None)?)?;
        engine.start().await?;
        Ok((engine, database))
    }
}

/// Returns a server that asks for credentials, with the settings that it is delivered with.
fn engine(ground: &Ground, name: &str, url: &str) -> anyhow::Result<Engine> {
    let mut engine = ground.engine(name, url);
    engine.open = false;
    engine.tuning = String::new();
    Ok(engine)
}

/// Returns the address of a server.
///
/// # Errors
/// Never: it was told so.
pub(super) fn address_of(engine: &Engine) -> anyhow::Result<SocketAddr> {
    Ok(engine.url().trim_start_matches("http://").parse()?)
}

async fn first_admin(program: &Path, url: &str, namespace: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.env(ROLE, "program").env("BACKSTITCH_DATABASE_URL", url);
    command.args(["key", "create", "--namespace", namespace, "--name", "root", "--role", "admin"]);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the first credential of {namespace}: {said}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn secrets(server: SocketAddr, admin: String) -> anyhow::Result<Secrets> {
    let mut wire = Wire::new(server, None);
    let mut made = Vec::new();
    for role in ["operator", "starter", "worker", "viewer"] {
        let body = json!({ "role": role }).to_string();
        let put = request("PUT", &format!("/v1/credentials/{role}"), &admin, &body);
        let answer = wire.ask(&put, true).await?;
        let said: Value = serde_json::from_slice(&answer.body)?;
        made.push(said["secret"].as_str().with_context(|| format!("{role}: {said}"))?.to_owned());
    }
    let [operator, starter, worker, viewer] = made.try_into().ok().context("four roles")?;
    Ok(Secrets { admin, operator, starter, worker, viewer })
}
