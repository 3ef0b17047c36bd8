//! The queue of incidents: reading it, and the verbs by which people work through it.

use backstitch_saga::Payload;
use backstitch_saga::protocol::{
    AssignIncident, CompensateIncident, EffectCounts, EffectFilter, EffectLine, IncidentCounts,
    IncidentFilter, IncidentGroup, IncidentId, IncidentLine, IncidentView, NoteIncident,
    ResolveStep, RetryStep, Scope, SkipStep,
};
use serde::Serialize;

use super::{Client, ClientError, Pages, parameters};

impl Client {
    /// Lists incidents, newest first.
    #[must_use]
    pub fn incidents(&self, filter: &IncidentFilter) -> Pages<IncidentLine> {
        Pages::new(self, "v1/incidents".to_owned(), parameters(filter))
    }

    /// Lists open incidents by what is the same about them, the largest group first; of the filter `kind`, `workflow`,
    /// `step` and `older_than`.
    #[must_use]
    pub fn incident_groups(&self, filter: &IncidentFilter) -> Pages<IncidentGroup> {
        Pages::new(self, "v1/incidents/groups".to_owned(), parameters(filter))
    }

    /// Returns the number of open incidents, by kind.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn incident_counts(&self) -> Result<IncidentCounts, ClientError> {
        self.read_from("v1/incidents/counts").await
    }

    /// Lists effects that remain and should not, or that may remain, the longest open first.
    #[must_use]
    pub fn effects(&self, filter: &EffectFilter) -> Pages<EffectLine> {
        Pages::new(self, "v1/effects".to_owned(), parameters(filter))
    }

    /// Returns the number of open effects, by system.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn effect_counts(&self) -> Result<EffectCounts, ClientError> {
        self.read_from("v1/effects/counts").await
    }

    /// Returns one incident, with what was tried and noted.
    ///
    /// # Errors
    /// A problem `unknown_incident`.
    pub async fn incident(&self, id: IncidentId) -> Result<IncidentView, ClientError> {
        self.read_from(&format!("v1/incidents/{id}")).await
    }

    /// Lets its step or item try again, with a better input if there is one.
    ///
    /// # Errors
    /// A problem, such as `incident_resolved`.
    pub async fn retry_incident(
        &self,
        id: IncidentId,
        input: Option<Payload>,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        self.work(id, "retry", &RetryStep { reason: reason.to_owned(), input }).await
    }

    /// Goes on without its step or item, with `output` in its place if there is one.
    ///
    /// # Errors
    /// A problem, such as `incident_resolved`.
    pub async fn skip_incident(
        &self,
        id: IncidentId,
        output: Option<Payload>,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        self.work(id, "skip", &SkipStep { reason: reason.to_owned(), output }).await
    }

    /// Says that its step or item was done, and with what output.
    ///
    /// # Errors
    /// A problem, such as `incident_resolved`.
    pub async fn resolve_incident(
        &self,
        id: IncidentId,
        output: Payload,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        let body = ResolveStep { reason: reason.to_owned(), output, external_id: None };
        self.work(id, "resolve", &body).await
    }

    /// Vouches that its compensation is done, or needs not be.
    ///
    /// # Errors
    /// A problem when nothing is being undone there.
    pub async fn mark_incident_compensated(
        &self,
        id: IncidentId,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        self.send_reason(&format!("v1/incidents/{id}/mark-compensated"), reason).await
    }

    /// Undoes its run, or a part of it; with `force` even past a pivot.
    ///
    /// # Errors
    /// A problem, such as `past_pivot`.
    pub async fn compensate_incident(
        &self,
        id: IncidentId,
        scope: Scope,
        force: bool,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        let body = CompensateIncident { scope, reason: reason.to_owned(), force };
        self.work(id, "compensate", &body).await
    }

    /// Stops its run and undoes what it did.
    ///
    /// # Errors
    /// A problem, such as `run_ended`.
    pub async fn cancel_incident(
        &self,
        id: IncidentId,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        self.send_reason(&format!("v1/incidents/{id}/cancel"), reason).await
    }

    /// Ends its run without undoing anything.
    ///
    /// # Errors
    /// A problem, such as `run_ended`.
    pub async fn abandon_incident(
        &self,
        id: IncidentId,
        reason: &str,
    ) -> Result<IncidentView, ClientError> {
        self.send_reason(&format!("v1/incidents/{id}/abandon"), reason).await
    }

    /// Assigns it to a person; to nobody with an empty name.
    ///
    /// # Errors
    /// A problem `unknown_incident`.
    pub async fn assign_incident(
        &self,
        id: IncidentId,
        assignee: &str,
        note: Option<&str>,
    ) -> Result<IncidentView, ClientError> {
        let (assignee, note) = (assignee.to_owned(), note.map(str::to_owned));
        self.work(id, "assign", &AssignIncident { assignee, note }).await
    }

    /// Writes something on it.
    ///
    /// # Errors
    /// A problem `unknown_incident`.
    pub async fn note_incident(
        &self,
        id: IncidentId,
        note: &str,
    ) -> Result<IncidentView, ClientError> {
        self.work(id, "note", &NoteIncident { note: note.to_owned() }).await
    }

    async fn work(
        &self,
        id: IncidentId,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<IncidentView, ClientError> {
        self.send_act(&format!("v1/incidents/{id}/{verb}"), body).await
    }
}
