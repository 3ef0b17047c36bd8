//! Counters of a node, for `/metrics`. Reading it costs no query.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Engine;

/// Numbers for `/metrics`: name, help text, whether it is a counter (else a gauge), value.
pub type Metrics = Vec<(&'static str, &'static str, bool, f64)>;

macro_rules! counters {
    ($($field:ident: $name:literal, $help:literal, $counter:literal;)+) => {
        /// All numbers of one node.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: Number,)+
        }

        impl Counters {
            pub(crate) fn metrics(&self) -> Metrics {
                vec![$(($name, $help, $counter, self.$field.get() as f64),)+]
            }
        }
    };
}

counters! {
    commands: "backstitch_commands_total", "Commands decided, repeats after conflicts included.", true;
    turned_away: "backstitch_commands_turned_away_total", "Requests answered busy because their namespace had its share of what waits.", true;
    refused: "backstitch_commands_refused_total", "Commands that the rules refused.", true;
    batches: "backstitch_batches_total", "Batches committed.", true;
    records: "backstitch_records_total", "Journal records written.", true;
    events: "backstitch_events_total", "Events written.", true;
    loads: "backstitch_runs_loaded_total", "Runs folded from their journals.", true;
    conflicts: "backstitch_conflicts_total", "Records that were not written because another node was first, or another run had their key.", true;
    retried_one_by_one: "backstitch_retried_one_by_one_total", "Commands repeated alone because the database refused their batch.", true;
    unknown_commits: "backstitch_unknown_commits_total", "Batches whose commit was not answered and was looked up.", true;
    store_failures: "backstitch_store_failures_total", "Batches that the database failed.", true;
    bugs: "backstitch_bugs_total", "Commands stopped by a defect.", true;
    loops_panicked: "backstitch_background_panics_total", "Times a defect stopped a background task, which began anew.", true;
    clock_doubts: "backstitch_clock_doubts_total", "Times the database's clock began to contradict this node's.", true;
    clock_steps: "backstitch_clock_steps_total", "Times this node followed the database's clock by a step.", true;
    indexes_mended: "backstitch_indexes_mended_total", "Runs whose index rows differed from their journals and were mended", true;
    log_heads_mended: "backstitch_log_heads_mended_total", "Heads of logs that were lost or wrong and were set right by the positions that were given.", true;
    log_batches_restored: "backstitch_log_batches_restored_total", "Batches of events that had lost their position, or were not announced, and were given one.", true;
    schedules_mended: "backstitch_schedules_mended_total", "Schedules that would have been looked at too late, by a lost row or a corrected clock, and were set right.", true;
    damaged: "backstitch_journals_damaged_total", "Runs put aside because their journals cannot be read", true;
    late_results: "backstitch_late_results_total", "Reports by attempts that had lost their lease.", true;
    lease_losses: "backstitch_lease_losses_total", "Attempts lost: their lease was over without a report.", true;
    retries: "backstitch_retries_total", "Attempts that failed or were lost and are tried again.", true;
    guard_pauses: "backstitch_guard_pauses_total", "Workflows that the guard against bad deploys paused.", true;
    incidents_opened: "backstitch_incidents_opened_total", "Incidents that opened.", true;
    incidents_resolved: "backstitch_incidents_resolved_total", "Incidents that were resolved.", true;
    born_claimed: "backstitch_born_claimed_total", "Tasks handed to a waiting worker in the record that made them.", true;
    spilled: "backstitch_spilled_total", "Tasks that went to the table ready.", true;
    released: "backstitch_released_total", "Tasks taken back from workers that never fetched them.", true;
    parked: "backstitch_runs_parked_total", "Runs put aside until their next timer.", true;
    takeovers: "backstitch_takeovers_total", "Runs taken over from nodes that are gone.", true;
    fences_held: "backstitch_fences_held_total", "Decisions put back because a worker's transaction was open or had completed the attempt.", true;
    starts_refused: "backstitch_starts_refused_total", "Starts asked for in transactions that were refused and wait for a person.", true;
    events_appended: "backstitch_log_events_appended_total", "Events appended to the log.", true;
    event_weeks_dropped: "backstitch_log_weeks_dropped_total", "Weeks of events dropped by retention.", true;
    events_numbered: "backstitch_log_events_numbered_total", "Events of the log that this node gave their positions.", true;
    intake_accepted: "backstitch_intake_accepted_total", "Documents of sources that became events.", true;
    intake_duplicates: "backstitch_intake_duplicates_total", "Documents of sources that had been taken in before.", true;
    intake_refused: "backstitch_intake_refused_total", "Documents of sources that were refused and are kept.", true;
    intake_unverified: "backstitch_intake_unverified_total", "Requests to doors whose sender was not verified, of which nothing is kept.", true;
    log_backlog: "backstitch_log_backlog_batches", "Batches of events that have no positions yet, when this node last looked.", false;
    log_backlog_age: "backstitch_log_backlog_age_milliseconds", "Age of the oldest of them.", false;
    subscription_starts: "backstitch_subscription_starts_total", "Events for which subscriptions started a run, repeats included.", true;
    subscriptions_stopped: "backstitch_subscriptions_stopped", "Subscriptions that stand because the start of an event is refused.", false;
    subscriptions_behind: "backstitch_subscriptions_behind_events", "Events that the subscription which is furthest behind has not dealt with.", false;
    subscriptions_pending: "backstitch_subscriptions_pending_events", "Events that subscriptions have taken up and not finished: they wait, or their runs are under way.", false;
    snapshots: "backstitch_snapshots_total", "Snapshots written.", true;
    partitions_dropped: "backstitch_partitions_dropped_total", "Weeks of runs dropped by retention.", true;
    drops_put_off: "backstitch_partition_drops_put_off_total", "Weeks that retention did not drop yet because they were read or written; it comes again.", true;
    runs_deleted: "backstitch_runs_deleted_total", "Ended runs deleted by retention one by one, from weeks that others keep or by the retention of their workflow.", true;
    schedule_starts: "backstitch_schedule_starts_total", "Runs started by schedules.", true;
    permits_given: "backstitch_permits_given_total", "Permits given to tasks of governed queues.", true;
    permits_lapsed: "backstitch_permits_lapsed_total", "Permits by which nothing was leased in time.", true;
    breakers_opened: "backstitch_breakers_opened_total", "Times this node saw the breaker of a queue open.", true;
    breakers_closed: "backstitch_breakers_closed_total", "Times this node saw the breaker of a queue close after a probe.", true;
    governed_queues: "backstitch_governed_queues", "Queues with a policy.", false;
    queues_paused: "backstitch_queues_paused", "Queues that a person paused.", false;
    breakers_open: "backstitch_breakers_open", "Queues whose breaker is not closed.", false;
    retry_budgets_exhausted: "backstitch_retry_budgets_exhausted", "Queues that have no retry left in their budget.", false;
    queued: "backstitch_queue_depth", "Commands waiting to be decided.", false;
    cached: "backstitch_cached_runs", "Runs in memory.", false;
    timers: "backstitch_timers", "Runs whose timers this node keeps.", false;
    sessions: "backstitch_sessions", "Sessions of workers.", false;
    children_waiting: "backstitch_children_waiting", "Questions to children that wait for their turn.", false;
    partition_weeks: "backstitch_partition_weeks", "Weeks that have partitions: this one and those to come, up to the first gap.", false;
    batch_age: "backstitch_batch_age_milliseconds", "For how long the oldest batch under way has been written.", false;
    index_round: "backstitch_index_round_milliseconds", "How long the check of the indexes takes to look at every run that has not ended.", false;
    hints: "backstitch_ready_hints", "Tasks on offer that this node keeps in mind.", false;
}

impl Engine {
    /// Returns counters and gauges; reading them costs no query.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let node = self.node();
        node.counters.queued.set(node.depth());
        let (sessions, hints) = node.dispatcher.sizes();
        node.counters.sessions.set(sessions);
        node.counters.hints.set(hints);
        node.counters.children_waiting.set(node.turns.waiting());
        node.counters.partition_weeks.set(node.database.weeks.from(node.clock.now()));
        let age = node.health.write_age().unwrap_or_default().as_millis();
        node.counters.batch_age.set(usize::try_from(age).unwrap_or(usize::MAX));
        let round = node.checked.round().as_millis();
        node.counters.index_round.set(usize::try_from(round).unwrap_or(usize::MAX));
        node.counters.metrics()
    }
}

/// One number, changed by many.
#[derive(Debug, Default)]
pub(crate) struct Number(AtomicU64);

impl Number {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
