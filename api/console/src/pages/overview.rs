//! The overview: incidents first, then the numbers of runs, and the workers.

use askama::Template;
use backstitch_saga::Timestamp;
use backstitch_saga::protocol::{
    IncidentGroup, Page, QueueView, RunLine, State, StatusView, WorkerView,
};

use super::runs::Line;
use crate::ask::{Ask, Problem};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number, spoken, state_tone};

/// A group of incidents.
pub(crate) struct Group {
    pub(crate) group: IncidentGroup,
    pub(crate) kind: String,
    pub(crate) count: String,
    pub(crate) since: String,
    pub(crate) since_at: String,
}

impl Group {
    pub(crate) fn of(group: IncidentGroup) -> Group {
        Group {
            kind: spoken(&group.kind),
            count: number(group.count),
            since: moment(group.first_seen),
            since_at: instant(group.first_seen),
            group,
        }
    }
}

struct StateCount {
    word: String,
    count: String,
    badge: Badge,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    mark: u64,
    status: StatusView,
    open: String,
    groups: Vec<Group>,
    states: Vec<StateCount>,
    newest: Vec<Line>,
    queues: Vec<QueueView>,
    workers: usize,
    more_workers: bool,
    nothing_yet: bool,
    oldest_task: Option<(String, String)>,
}

/// The states of runs that move, in the order in which they need somebody.
const STATES: [State; 6] = [
    State::CompensationBlocked,
    State::Compensating,
    State::Paused,
    State::Waiting,
    State::Running,
    State::Queued,
];

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<OverviewPage, Problem> {
    let who = ask.who().await?;
    let (status, mark): (StatusView, u64) = ask.get_live("/v1/status").await?;
    let groups: Page<IncidentGroup> = ask.get("/v1/incidents/groups").await?;
    let newest: Page<RunLine> = ask.get("/v1/runs?limit=8").await?;
    let queues: Page<QueueView> = ask.get("/v1/queues?limit=20").await?;
    let workers: Page<WorkerView> = ask.get("/v1/workers?limit=100").await?;
    let count = |state: &State| {
        let count = status.runs.get(state.as_str()).copied().unwrap_or(0);
        StateCount {
            word: state.as_str().to_owned(),
            count: number(count),
            badge: Badge::new(
                if count == 0 { Tone::Idle } else { state_tone(*state) },
                state.as_str(),
            ),
        }
    };
    let at = |at: Timestamp| (instant(at), moment(at));
    Ok(OverviewPage {
        frame: Frame::new(ask, who, "overview", "Overview"),
        mark,
        open: number(status.incidents.open),
        groups: groups.items.into_iter().take(10).map(Group::of).collect(),
        states: STATES.iter().map(count).collect(),
        nothing_yet: newest.items.is_empty(),
        newest: newest.items.into_iter().map(Line::of).collect(),
        queues: queues.items,
        more_workers: workers.next.is_some(),
        workers: workers.items.iter().filter(|worker| worker.gone_at.is_none()).count(),
        oldest_task: status.oldest_task.map(at),
        status,
    })
}
