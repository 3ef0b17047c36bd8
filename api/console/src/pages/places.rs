//! Lines of serial keys, facts about a subject, and starts that have not become runs.

use askama::Template;
use backstitch_saga::protocol::{
    KeyPlace, Page, StartRequestState, StartRequestView, SubjectFacts,
};

use super::filter::Filter;
use crate::ask::{Ask, Problem, encoded};
use crate::form::{Deed, Field};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment};

struct Place {
    place: KeyPlace,
    at: String,
    moment: String,
}

struct Fact {
    fact: String,
    by: String,
    at: String,
    moment: String,
    withdrawn: Option<String>,
    deeds: Vec<Deed>,
}

#[derive(Template)]
#[template(path = "places.html")]
struct PlacesPage {
    frame: Frame,
    key: String,
    subject: String,
    line: Vec<Place>,
    facts: Vec<Fact>,
    waiting: Vec<(String, String)>,
    dependents: Vec<(String, String)>,
    deeds: Vec<Deed>,
}

pub(crate) async fn show(ask: Ask) -> Shown {
    match page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask) -> Result<PlacesPage, Problem> {
    let who = ask.who().await?;
    let line: Page<KeyPlace> = match ask.param("key") {
        Some(key) => ask.get(&format!("/v1/keys/{}", encoded(key))).await?,
        None => Page { items: Vec::new(), next: None },
    };
    let subject = ask.param("subject").unwrap_or_default().to_owned();
    let about: SubjectFacts = match subject.is_empty() {
        false => ask.get(&format!("/v1/facts/{}", encoded(&subject))).await?,
        true => SubjectFacts { facts: Vec::new(), waiting: Vec::new(), dependents: Vec::new() },
    };
    let fact = |one: backstitch_saga::protocol::FactView| {
        let path = format!("/v1/facts/{}/{}", encoded(&one.on), encoded(&one.fact));
        let deed = match one.withdrawn_at {
            None => Deed::new("withdraw", "Withdraw", format!("{path}/withdraw"))
                .about("Runs that began upon it are told, as each of them says."),
            Some(_) => Deed::new("establish", "Establish", format!("{path}/establish"))
                .about("Runs that wait for it begin."),
        };
        Fact {
            at: instant(one.at),
            moment: moment(one.at),
            withdrawn: one.withdrawn_by.clone().filter(|_| one.withdrawn_at.is_some()),
            deeds: vec![deed],
            fact: one.fact,
            by: one.by,
        }
    };
    let establish = Deed::new(
        "establish",
        "Establish a fact",
        "/v1/facts/{subject}/{fact}/establish".to_owned(),
    )
    .about("Runs that wait for it begin.")
    .field(Field::path("subject", "About what").value(subject.clone()).hint("Such as customer:42."))
    .field(Field::path("fact", "Fact").hint("Such as customer.created."));
    let place =
        |place: KeyPlace| Place { at: instant(place.since), moment: moment(place.since), place };
    Ok(PlacesPage {
        key: ask.param("key").unwrap_or_default().to_owned(),
        frame: Frame::new(ask, who, "keys", "Keys and facts"),
        subject,
        line: line.items.into_iter().map(place).collect(),
        waiting: about.waiting.iter().map(|one| (one.run.to_string(), one.fact.clone())).collect(),
        dependents: about
            .dependents
            .iter()
            .map(|one| (one.run.to_string(), one.fact.clone()))
            .collect(),
        facts: about.facts.into_iter().map(fact).collect(),
        deeds: vec![establish],
    })
}

struct Request {
    view: StartRequestView,
    badge: Badge,
    at: String,
    moment: String,
    deeds: Vec<Deed>,
}

#[derive(Template)]
#[template(path = "requests.html")]
struct RequestsPage {
    frame: Frame,
    requests: Vec<Request>,
    next: Option<String>,
}

pub(crate) async fn requests(ask: Ask) -> Shown {
    match requests_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn requests_page(ask: &Ask) -> Result<RequestsPage, Problem> {
    let who = ask.who().await?;
    let filter = Filter::of(ask, &[]);
    let page = ask.list::<StartRequestView>("/v1/start-requests", 50, &filter).await?;
    let request = |view: StartRequestView| {
        let of = |word: &'static str, label| {
            Deed::new(word, label, format!("/v1/start-requests/{}/{word}", view.id))
        };
        let deeds = match view.state {
            StartRequestState::Refused => {
                vec![of("retry", "Retry"), of("dismiss", "Dismiss").danger()]
            }
            StartRequestState::Waiting | StartRequestState::Dismissed => Vec::new(),
        };
        let tone = match view.state {
            StartRequestState::Waiting => Tone::Calm,
            StartRequestState::Refused => Tone::Bad,
            StartRequestState::Dismissed => Tone::Idle,
        };
        Request {
            badge: Badge::new(tone, view.state.as_str()),
            at: instant(view.requested_at),
            moment: moment(view.requested_at),
            deeds,
            view,
        }
    };
    Ok(RequestsPage {
        frame: Frame::new(ask, who, "requests", "Start requests"),
        requests: page.items.into_iter().map(request).collect(),
        next: page.next,
    })
}
