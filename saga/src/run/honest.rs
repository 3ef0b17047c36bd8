//! Folding records that were read back: one that cannot have been written is an error, not a guess.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Run;
use crate::Payload;
use crate::event::{Event, Record, Slot, Source};

impl Run {
    /// Folds one record that was read from a journal, as [`Run::apply`] does.
    ///
    /// # Errors
    /// What is impossible in it: a document, step or item that is missing, an attempt that was never offered, a count
    /// that falls below zero, something that begins or ends twice. The run is of no use then.
    pub fn try_apply(&mut self, record: &Record) -> Result<(), String> {
        let folded = catch_unwind(AssertUnwindSafe(|| {
            for event in &record.events {
                self.check(event, &record.payloads)?;
                self.apply_event(event, record.at, &record.payloads);
                if self.tally.miscounted {
                    return Err("what it ends had ended before".to_owned());
                }
            }
            Ok(())
        }));
        folded
            .unwrap_or_else(|_| Err("an event of it contradicts the events before".to_owned()))?;
        self.appended_at(record.at);
        Ok(())
    }

    fn check(&self, event: &Event, payloads: &[Payload]) -> Result<(), String> {
        let mut slots = slots(event).into_iter().flatten();
        if let Some(Slot(slot)) = slots.find(|slot| payloads.get(slot.0 as usize).is_none()) {
            return Err(format!("document {slot} is missing"));
        }
        let started = matches!(event, Event::Started(_));
        if started != self.header.origin.is_none() {
            return Err("its start is not the first event, or not the only one".to_owned());
        }
        match self.contradiction(event, payloads) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }
}

/// Returns the documents of its record that an event refers to.
fn slots(event: &Event) -> [Option<Slot>; 2] {
    let inside = |source: &Source| match source {
        Source::Slot(slot) => Some(*slot),
        Source::Same(_) => None,
    };
    let one = match event {
        Event::Opened { items, keys, .. } => return [inside(items), *keys],
        Event::Offered { input, .. } | Event::ChildAsked { input, .. } => {
            input.as_ref().and_then(inside)
        }
        Event::Started(begun) => Some(begun.input),
        Event::InputEdited { input, .. } => Some(*input),
        Event::Succeeded { output, .. } => Some(*output),
        Event::Signalled { data, .. } => Some(*data),
        Event::Emitted(emission) => Some(emission.data),
        Event::Beat { details, .. } => *details,
        Event::SkippedByHand { output, .. } | Event::Ended { output, .. } => *output,
        Event::RerunRequested { input, .. } => *input,
        _ => None,
    };
    [one, None]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Command, Graph, Record, Run, RunId, Start, StepPath, Time, Transition, decide};

    const TWO: &str = r#"{"name":"two","version":1,"steps":[
        {"id":"a","task":{"name":"do","input":{"path":"/input"},"class":"retriable"}},
        {"id":"b","after":["a"],"task":{"name":"do","input":{"const":1},"class":"retriable"}}]}"#;

    fn begun() -> (Run, Record) {
        let run = Run::new(RunId(uuid::Uuid::nil()), Arc::new(Graph::parse(TWO).unwrap()));
        let start = Start {
            namespace: "n".into(),
            definition: "d".into(),
            key: None,
            correlation_id: None,
            causation_id: None,
            labels: Default::default(),
            input: crate::Payload::trusted("1".to_owned()).unwrap(),
            parent: None,
            descent: None,
            start_at: None,
            requires: Vec::new(),
            end_by: None,
            holds: Vec::new(),
        };
        let (mut decided, mut transition) = (run.clone(), Transition::default());
        decide(&mut decided, Command::Start(start), Time(5), &mut transition).unwrap();
        (run, transition.record)
    }

    fn refused(change: impl FnOnce(&mut Record)) -> String {
        let (mut run, mut record) = begun();
        change(&mut record);
        run.try_apply(&record).unwrap_err()
    }

    #[test]
    fn a_record_as_it_was_written_is_folded() {
        let (mut run, record) = begun();
        let mut twin = run.clone();
        twin.apply(&record);
        run.try_apply(&record).unwrap();
        assert_eq!(run.snapshot(), twin.snapshot());
    }

    #[test]
    fn a_document_that_is_missing_is_an_error() {
        assert_eq!(refused(|record| record.payloads.clear()), "document 0 is missing");
    }

    #[test]
    fn a_step_that_is_not_there_is_an_error() {
        let missing = refused(|record| {
            for event in &mut record.events {
                if let crate::Event::Offered { step, .. } = event {
                    *step = StepPath::step("c");
                }
            }
        });
        assert_eq!(missing, "it names 'c', which the workflow does not have");
    }

    #[test]
    fn a_start_that_is_missing_or_stands_twice_is_an_error() {
        let first = |record: &mut Record| record.events.remove(0);
        assert!(refused(|record| drop(first(record))).starts_with("its start"));
        let twice = refused(|record| record.events.push(record.events[0].clone()));
        assert!(twice.starts_with("its start"));
    }
}
