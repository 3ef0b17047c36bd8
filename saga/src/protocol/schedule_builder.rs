//! Schedules written in Rust: what is not said is as in a JSON document that leaves it out.

use serde::Serialize;

use super::schedules::{an_hour, one, utc};
use super::{Interval, IntervalUnit, Labels, Overlap, ScheduleSpec};
use crate::{Payload, Span, Timestamp};

impl Default for ScheduleSpec {
    /// Returns all that a document may leave out. `cron` and `workflow` are empty and must be given.
    fn default() -> Self {
        ScheduleSpec {
            cron: String::new(),
            also: Vec::new(),
            time_zone: utc(),
            interval: None,
            begin: None,
            end: None,
            workflow: String::new(),
            version: None,
            input: Payload::null(),
            instant_as: None,
            labels: Labels::new(),
            overlap: Overlap::default(),
            queue_limit: one(),
            catch_up: an_hour(),
            jitter: Span::default(),
            end_within: None,
        }
    }
}

impl ScheduleSpec {
    /// Starts `workflow`, in its newest version, whenever the pattern `cron` is due.
    ///
    /// ```
    /// use backstitch_saga::protocol::{Overlap, ScheduleSpec};
    /// use backstitch_saga::Span;
    ///
    /// # fn nightly() -> Result<ScheduleSpec, serde_json::Error> {
    /// let nightly = ScheduleSpec::new("close-books", "30 2 * * *")
    ///     .time_zone("Europe/Berlin")
    ///     .overlap(Overlap::Queue)
    ///     .input(&"all shops")?;
    /// # Ok(nightly)
    /// # }
    /// # assert_eq!(nightly().expect("it has a JSON form").catch_up, Span::hours(1));
    /// ```
    #[must_use]
    pub fn new(workflow: impl Into<String>, cron: impl Into<String>) -> ScheduleSpec {
        ScheduleSpec { workflow: workflow.into(), cron: cron.into(), ..ScheduleSpec::default() }
    }

    /// Adds a pattern. An instant that several of them match is one start.
    #[must_use]
    pub fn also(mut self, cron: impl Into<String>) -> ScheduleSpec {
        self.also.push(cron.into());
        self
    }

    /// Sets the time zone that the patterns are read in, such as `Europe/Berlin`; `UTC` without it.
    #[must_use]
    pub fn time_zone(self, time_zone: impl Into<String>) -> ScheduleSpec {
        ScheduleSpec { time_zone: time_zone.into(), ..self }
    }

    /// Keeps only every n-th day or week, counted from the date `anchor`.
    #[must_use]
    pub fn interval(
        self,
        every: u32,
        unit: IntervalUnit,
        anchor: impl Into<String>,
    ) -> ScheduleSpec {
        let anchor = anchor.into();
        ScheduleSpec { interval: Some(Interval { every, unit, anchor }), ..self }
    }

    /// Sets the first possible instant; no instant is earlier.
    #[must_use]
    pub fn begin(self, instant: Timestamp) -> ScheduleSpec {
        ScheduleSpec { begin: Some(instant), ..self }
    }

    /// Sets the last possible instant; no instant is later.
    #[must_use]
    pub fn end(self, instant: Timestamp) -> ScheduleSpec {
        ScheduleSpec { end: Some(instant), ..self }
    }

    /// Sets the version to start; the newest at each start without it.
    #[must_use]
    pub fn version(self, version: u32) -> ScheduleSpec {
        ScheduleSpec { version: Some(version), ..self }
    }

    /// Sets the input of each run; `null` without it.
    ///
    /// # Errors
    /// When the input has no JSON form.
    pub fn input(self, input: &impl Serialize) -> Result<ScheduleSpec, serde_json::Error> {
        Ok(ScheduleSpec { input: Payload::of(input)?, ..self })
    }

    /// Sets the member of the input in which each run finds its instant.
    #[must_use]
    pub fn instant_as(self, member: impl Into<String>) -> ScheduleSpec {
        ScheduleSpec { instant_as: Some(member.into()), ..self }
    }

    /// Adds a mark of each run to search by.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> ScheduleSpec {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the action of a start while the schedule's last run has not ended; by default it is left
    /// out.
    #[must_use]
    pub fn overlap(self, overlap: Overlap) -> ScheduleSpec {
        ScheduleSpec { overlap, ..self }
    }

    /// Sets the number of starts that may wait under [`Overlap::Queue`]; 1 by default.
    #[must_use]
    pub fn queue_limit(self, starts: u32) -> ScheduleSpec {
        ScheduleSpec { queue_limit: starts, ..self }
    }

    /// Sets the time for which a late start is made up for; an hour by default.
    #[must_use]
    pub fn catch_up(self, span: Span) -> ScheduleSpec {
        ScheduleSpec { catch_up: span, ..self }
    }

    /// Sets the longest time by which each start is put off.
    #[must_use]
    pub fn jitter(self, span: Span) -> ScheduleSpec {
        ScheduleSpec { jitter: span, ..self }
    }

    /// Sets the longest time that a run may take from its beginning, its undo included.
    #[must_use]
    pub fn end_within(self, span: Span) -> ScheduleSpec {
        ScheduleSpec { end_within: Some(span), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_in_a_document_that_leaves_it_out() {
        let document = r#"{"workflow":"w","cron":"0 3 * * *"}"#;
        let read: ScheduleSpec = serde_json::from_str(document).unwrap();
        assert_eq!(json(&ScheduleSpec::new("w", "0 3 * * *")), json(&read));
    }

    #[test]
    fn every_member_of_a_schedule_can_be_said() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let said = ScheduleSpec::new("w", "0 3 * * *")
            .also("0 9 * * *")
            .time_zone("Europe/Berlin")
            .interval(2, IntervalUnit::Weeks, "2026-01-05")
            .begin(at("2026-01-01T00:00:00Z"))
            .end(at("2027-01-01T00:00:00Z"))
            .version(3)
            .instant_as("scheduled_for")
            .label("shop", "north")
            .overlap(Overlap::Queue)
            .queue_limit(5)
            .catch_up(Span::hours(2))
            .jitter(Span::minutes(5))
            .input(&[1])
            .unwrap();
        let (said, plain) = (json(&said), json(&ScheduleSpec::default()));
        for (member, value) in said.as_object().unwrap() {
            assert_ne!(plain.get(member), Some(value), "{member}");
        }
        assert_eq!(said.as_object().unwrap().len(), 15, "{said}");
    }

    fn json(spec: &ScheduleSpec) -> serde_json::Value {
        serde_json::to_value(spec).unwrap()
    }
}
