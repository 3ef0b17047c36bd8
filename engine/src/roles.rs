//! The role that servers connect as: the owner of the tables gives it its rights.

use std::time::Duration;

use crate::Error;
use crate::store::grants;

/// Grants `role` the rights of a server in the database of `database_url`: to read and write rows, and nothing else. A
/// missing role is created; one with more rights loses them. `keep_at_least` sets the shortest time for which ended
/// runs are kept, whatever retention a server has; without it, the present one stays.
///
/// # Errors
/// When PostgreSQL cannot be reached, the schema is not up to date, or its owner is somebody else.
pub async fn grant_server(
    database_url: &str,
    role: &str,
    keep_at_least: Option<Duration>,
) -> Result<(), Error> {
    grants::of_server(database_url, role, keep_at_least).await
}

/// Returns the statements by which [`grant_server`] gives `role` its rights.
///
/// # Errors
/// When PostgreSQL cannot be reached, the schema is not up to date, or its owner is somebody else.
pub async fn grants_of_server(database_url: &str, role: &str) -> Result<String, Error> {
    grants::printed(database_url, role).await
}
