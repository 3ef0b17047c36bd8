//! The overview: incidents first, then the numbers of runs, and the workers.

use askama::Template;
use backstitch_saga::Timestamp;
use backstitch_saga::protocol::{
    EventPage, IncidentGroup, Page, QueueView, RunLine, StatusView, SubscriptionState,
    SubscriptionView, WorkerView,
};

use super::counts::StateCount;
use super::runs::Line;
use crate::ask::{Ask, Problem};
use crate::live::NEWEST_EVENT;
use crate::page::{Frame, Shown, ok};
use crate::show::{instant, moment, number, spoken};

/// A group of incidents.
pub(crate) struct Group {
    pub(crate) group: IncidentGroup,
    pub(crate) kind: String,
    pub(crate) count: String,
    pub(crate) since: String,
    pub(crate) since_at: String,
    /// A sentence on whether they become more.
    pub(crate) trend: String,
}

impl Group {
    pub(crate) fn of(group: IncidentGroup) -> Group {
        Group {
            kind: spoken(&group.kind),
            count: number(group.count),
            since: moment(group.first_seen),
            since_at: instant(group.first_seen),
            trend: trend(group.last_hour, group.hour_before),
            group,
        }
    }
}

/// Returns the number of those of the last hour, and of the hour before.
fn trend(last: u64, before: u64) -> String {
    let sign = match last.cmp(&before) {
        std::cmp::Ordering::Greater => "↑",
        std::cmp::Ordering::Equal => "→",
        std::cmp::Ordering::Less => "↓",
    };
    match (last, before) {
        (0, 0) => String::new(),
        _ => format!("{sign} {} in the last hour, {} before", number(last), number(before)),
    }
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
    /// Outcomes of runs that were started within the last hour.
    ended: Vec<StateCount>,
    /// The end of the log, and the subscriptions that are behind or stopped.
    head: String,
    behind: Vec<Behind>,
    newest: Vec<Line>,
    queues: Vec<QueueView>,
    workers: usize,
    more_workers: bool,
    nothing_yet: bool,
    oldest_task: Option<(String, String)>,
}

/// A subscription that has events before it.
struct Behind {
    name: String,
    count: String,
    stopped: bool,
}

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
    let log: EventPage = ask.get(NEWEST_EVENT).await?;
    let subscriptions: Page<SubscriptionView> = ask.get("/v1/subscriptions?limit=100").await?;
    let behind = subscriptions.items.into_iter().filter_map(|one| {
        let stopped = one.state == SubscriptionState::Stopped;
        (stopped || one.behind > 0).then(|| Behind {
            count: number(one.behind),
            name: one.name,
            stopped,
        })
    });
    let at = |at: Timestamp| (instant(at), moment(at));
    Ok(OverviewPage {
        frame: Frame::new(ask, who, "overview", "Overview"),
        mark,
        open: number(status.incidents.open),
        groups: groups.items.into_iter().take(10).map(Group::of).collect(),
        states: StateCount::moving(&status),
        ended: StateCount::ended(&status),
        head: number(log.head),
        behind: behind.take(10).collect(),
        nothing_yet: newest.items.is_empty(),
        newest: newest.items.into_iter().map(Line::of).collect(),
        queues: queues.items,
        more_workers: workers.next.is_some(),
        workers: workers.items.iter().filter(|worker| worker.gone_at.is_none()).count(),
        oldest_task: status.oldest_task.map(at),
        status,
    })
}
