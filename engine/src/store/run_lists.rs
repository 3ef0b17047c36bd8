//! Lists of runs, newest first.
//!
//! An id contains the time, so the planner tends to read all runs backwards until enough of them match: all those of
//! the other namespaces, too. Each list is therefore asked for in the order of the index that is to serve it. A column
//! of that index that has one value is compared by `between`, since `=` would take it out of the order.

use backstitch_saga::protocol::{Outcome, RunLine, State};
use backstitch_saga::{RunId, Span};
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::runs::{push_filter, run_line};
use crate::RunFilter;

const COLUMNS: &str = "r.id, r.workflow, r.version, r.key, r.correlation_id, r.labels::text, r.state, r.outcome, \
     r.conditions, r.started_at, r.ended_at";

const ACTIVE: [&str; 6] =
    ["queued", "waiting", "running", "paused", "compensating", "compensation_blocked"];
const OUTCOMES: [&str; 7] = [
    "succeeded",
    "partially_completed",
    "failed_clean",
    "failed_dirty",
    "compensated",
    "compensated_with_manual_steps",
    "cancelled",
];

/// The index that serves a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Something that few runs have: the planner finds it.
    Selective,
    /// The runs with conditions.
    Conditions,
    /// The runs of a workflow.
    Workflow,
    /// Those that have not ended and those that have, by state and outcome.
    Words { active: &'static [&'static str], outcomes: &'static [&'static str] },
}

/// Returns the word of the list that is `word`.
fn only(words: &'static [&'static str], word: &str) -> &'static [&'static str] {
    let place = words.iter().position(|known| *known == word);
    place.map_or(&[], |place| &words[place..=place])
}

impl Way {
    fn of(filter: &RunFilter) -> Way {
        if filter.key.is_some() || filter.correlation_id.is_some() || !filter.labels.is_empty() {
            return Way::Selective;
        }
        let conditions = [&filter.condition, &filter.unknown_in, &filter.assignee];
        if filter.incident == Some(true) || conditions.into_iter().any(Option::is_some) {
            return Way::Conditions;
        }
        match (filter.outcome, filter.state) {
            (Some(outcome), _) if outcome != Outcome::Succeeded || filter.workflow.is_none() => {
                Way::Words { active: &[], outcomes: only(&OUTCOMES, outcome.as_str()) }
            }
            (None, Some(state)) if state != State::Ended => {
                Way::Words { active: only(&ACTIVE, state.as_str()), outcomes: &[] }
            }
            _ if filter.workflow.is_some() => Way::Workflow,
            (_, Some(_)) => Way::Words { active: &[], outcomes: &OUTCOMES },
            (_, None) => Way::Words { active: &ACTIVE, outcomes: &OUTCOMES },
        }
    }
}

/// The arguments of a list.
struct Asked<'a> {
    namespace: &'a str,
    filter: RunFilter,
    lead: Span,
    before: Option<Uuid>,
    limit: i64,
}

impl Asked<'_> {
    /// Adds the conditions that are left, the order and the limit.
    fn push_rest(&self, query: &mut QueryBuilder<Postgres>, order: &str) {
        push_filter(query, self.namespace, &self.filter, Some(self.lead));
        if let Some(before) = self.before {
            query.push(" and r.id < ").push_bind(before);
        }
        query.push(" order by ").push(order).push("r.id desc limit ").push_bind(self.limit);
    }

    /// Adds the newest of each word.
    fn push_words(&self, query: &mut QueryBuilder<Postgres>, words: &[&str], column: &str) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        query.push("select r.* from unnest(").push_bind(words);
        query.push("::text[]) s(word) cross join lateral (select ").push(COLUMNS);
        query.push(" from runs r where r.namespace = ").push_bind(self.namespace.to_owned());
        query.push(if column == "state" {
            " and r.state <> 'ended' and r.state between s.word and s.word"
        } else {
            " and r.outcome between s.word and s.word"
        });
        self.push_rest(
            query,
            if column == "state" { "r.state desc, " } else { "r.outcome desc, " },
        );
        query.push(") r");
    }
}

/// Returns one run as the index has it.
pub(crate) async fn one(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
) -> Result<Option<RunLine>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- runs_one\nselect ");
    query.push(COLUMNS).push(" from runs r where r.namespace = ").push_bind(namespace.to_owned());
    query.push(" and r.id = ").push_bind(run.0);
    query.build().fetch_optional(connection).await?.as_ref().map(run_line).transpose()
}

/// Lists runs of a namespace, newest first, before the run `before`. `lead` is the time by which the id of one may be
/// ahead of its start.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &RunFilter,
    lead: Span,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<RunLine>, sqlx::Error> {
    let mut asked = Asked { namespace, filter: filter.clone(), lead, before, limit };
    let mut query = QueryBuilder::<Postgres>::new("-- runs_list\n");
    match Way::of(filter) {
        Way::Selective => {
            query.push("select ").push(COLUMNS).push(" from runs r where r.namespace = ");
            query.push_bind(namespace.to_owned());
            asked.push_rest(&mut query, "");
        }
        Way::Conditions => {
            query.push("select ").push(COLUMNS).push(" from runs r where r.namespace between ");
            query.push_bind(namespace.to_owned()).push(" and ").push_bind(namespace.to_owned());
            asked.push_rest(&mut query, "r.namespace desc, ");
        }
        Way::Workflow => {
            let workflow = asked.filter.workflow.take().unwrap_or_default();
            query.push("select ").push(COLUMNS).push(" from runs r where r.namespace = ");
            query.push_bind(namespace.to_owned()).push(" and r.workflow between ");
            query.push_bind(workflow.clone()).push(" and ").push_bind(workflow);
            asked.push_rest(&mut query, "r.workflow desc, ");
        }
        Way::Words { active, outcomes } => {
            // The state of a run that has not ended is in the words; of one that has, only its end.
            asked.filter.outcome = None;
            if filter.state != Some(State::Ended) && filter.outcome.is_none() {
                asked.filter.state = None;
            }
            if !active.is_empty() {
                asked.push_words(&mut query, active, "state");
            }
            if !active.is_empty() && !outcomes.is_empty() {
                query.push(" union all ");
            }
            if !outcomes.is_empty() {
                asked.push_words(&mut query, outcomes, "outcome");
            }
            query.push(" order by id desc limit ").push_bind(limit);
        }
    }
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(run_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(change: impl FnOnce(&mut RunFilter)) -> Way {
        let mut filter = RunFilter::default();
        change(&mut filter);
        Way::of(&filter)
    }

    #[test]
    fn every_state_and_outcome_is_a_word() {
        assert!(ACTIVE.iter().all(|word| super::super::runs::state_of(word).is_some()));
        assert!(OUTCOMES.iter().all(|word| super::super::runs::outcome_of(word).is_some()));
    }

    #[test]
    fn a_list_goes_the_way_of_what_fewest_runs_have() {
        let cancelled = Way::Words { active: &[], outcomes: &OUTCOMES[6..] };
        assert_eq!(
            way(|filter| {
                filter.outcome = Some(Outcome::Cancelled);
                filter.incident = Some(false);
            }),
            cancelled
        );
        assert_eq!(
            way(|filter| {
                filter.outcome = Some(Outcome::Cancelled);
                filter.workflow = Some("w".to_owned());
            }),
            cancelled
        );
        assert_eq!(
            way(|filter| {
                filter.outcome = Some(Outcome::Succeeded);
                filter.workflow = Some("w".to_owned());
            }),
            Way::Workflow
        );
        assert_eq!(
            way(|filter| filter.state = Some(State::Running)),
            Way::Words { active: &ACTIVE[2..3], outcomes: &[] }
        );
        assert_eq!(way(|filter| filter.incident = Some(true)), Way::Conditions);
        assert_eq!(way(|filter| filter.key = Some("k".to_owned())), Way::Selective);
        assert_eq!(way(|_| {}), Way::Words { active: &ACTIVE, outcomes: &OUTCOMES });
    }
}
