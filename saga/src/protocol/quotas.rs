//! Quotas of a namespace, and their use.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// `PUT /v1/quotas`: limits of the namespace. Without a limit of its own, the server's applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quotas {
    /// Requests per second, at each server; twice as many in a burst. Requests of workers, those that stop something or
    /// change limits and credentials, and all others are counted separately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// The same for each credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_requests_per_second: Option<u32>,
    /// Starts per second, at each server; twice as many in a burst. A batch counts as its number of
    /// starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_per_second: Option<u32>,
    /// Runs that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// Versions of workflows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definitions: Option<u32>,
    /// Schedules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules: Option<u32>,
    /// Signals that are kept for runs that are yet to be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_signals: Option<u32>,
    /// Answers that are kept for repeats of requests with an `Idempotency-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_answers: Option<u32>,
    /// Claims that wait for tasks, and requests that wait for the end of a run, counted separately, at each
    /// server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
}

impl Quotas {
    /// The names of all quotas.
    pub const NAMES: [&str; 9] = [
        "requests_per_second",
        "credential_requests_per_second",
        "starts_per_second",
        "runs",
        "definitions",
        "schedules",
        "early_signals",
        "kept_answers",
        "waiting",
    ];

    /// Returns the quota called `name`.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Option<u32>> {
        Some(match name {
            "requests_per_second" => &mut self.requests_per_second,
            "credential_requests_per_second" => &mut self.credential_requests_per_second,
            "starts_per_second" => &mut self.starts_per_second,
            "runs" => &mut self.runs,
            "definitions" => &mut self.definitions,
            "schedules" => &mut self.schedules,
            "early_signals" => &mut self.early_signals,
            "kept_answers" => &mut self.kept_answers,
            "waiting" => &mut self.waiting,
            _ => return None,
        })
    }

    /// Returns the quota called `name`, if there is one and it is set.
    #[must_use]
    pub fn get(mut self, name: &str) -> Option<u32> {
        self.get_mut(name).and_then(|quota| *quota)
    }

    /// Combines two sets of quotas field by field, where both are set by `both`.
    #[must_use]
    fn combined(mut self, mut other: Quotas, both: impl Fn(u32, u32) -> u32) -> Quotas {
        for name in Quotas::NAMES {
            let theirs = other.get_mut(name).and_then(|quota| *quota);
            if let Some(quota) = self.get_mut(name) {
                *quota = match (*quota, theirs) {
                    (Some(ours), Some(theirs)) => Some(both(ours, theirs)),
                    (ours, theirs) => ours.or(theirs),
                };
            }
        }
        self
    }

    /// Returns the smaller of each two; what only one of them limits is limited by that.
    #[must_use]
    pub fn within(self, ceiling: Quotas) -> Quotas {
        self.combined(ceiling, u32::min)
    }

    /// Returns its own where it is set, else that of `others`.
    #[must_use]
    pub fn or(self, others: Quotas) -> Quotas {
        self.combined(others, |own, _| own)
    }
}

/// Origin of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum QuotaSource {
    /// An admin of the namespace.
    Namespace,
    /// The operator of the server.
    Server,
}

/// One quota, and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotaView {
    /// Its name.
    pub quota: String,
    /// The limit that holds: the smaller of the namespace's and the server's. Nothing limits it without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Origin of the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<QuotaSource>,
    /// Present use, as counted within the last seconds; left out for rates. Counted up to one more than the limit, or
    /// up to 10,000 if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,
}

/// `GET /v1/quotas`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotasView {
    /// All quotas.
    pub quotas: Vec<QuotaView>,
    /// Time at which an admin of the namespace last set a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quota_has_a_name_and_every_name_a_quota() {
        let mut all = Quotas::default();
        for (value, name) in (1..).zip(Quotas::NAMES) {
            *all.get_mut(name).unwrap() = Some(value);
        }
        let printed = serde_json::to_value(all).unwrap();
        for (value, name) in (1_u32..).zip(Quotas::NAMES) {
            assert_eq!((printed[name].as_u64(), all.get(name)), (Some(value.into()), Some(value)));
        }
        assert_eq!(printed.as_object().unwrap().len(), Quotas::NAMES.len());
        assert_eq!(all.get("nothing"), None);
    }

    #[test]
    fn a_namespace_cannot_set_itself_more_than_the_server_allows() {
        let own =
            Quotas { runs: Some(50), schedules: Some(5), waiting: Some(7), ..Quotas::default() };
        let ceiling = Quotas {
            runs: Some(10),
            schedules: Some(9),
            definitions: Some(1),
            ..Quotas::default()
        };
        let both = Quotas {
            runs: Some(10),
            schedules: Some(5),
            definitions: Some(1),
            waiting: Some(7),
            ..Quotas::default()
        };
        assert_eq!(own.within(ceiling), both);
        assert_eq!(own.or(ceiling).runs, Some(50));
        assert_eq!(own.or(ceiling).definitions, Some(1));
    }
}
