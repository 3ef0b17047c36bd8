//! The frame around every page, and the page of a problem.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use crate::ask::{Ask, Problem, Who, encoded};
use crate::assets;
use crate::pages::login::arriving;

/// The frame around a page.
pub(crate) struct Frame {
    pub(crate) title: String,
    /// The part of the console that the page belongs to.
    pub(crate) part: &'static str,
    pub(crate) who: Option<Who>,
    /// The token for forms.
    pub(crate) token: String,
    /// Address of the page.
    pub(crate) place: String,
    /// Result of the action before it was shown.
    pub(crate) done: Option<String>,
    pub(crate) version: &'static str,
}

/// One line of the menu.
pub(crate) struct Entry {
    pub(crate) part: &'static str,
    pub(crate) name: &'static str,
    pub(crate) href: &'static str,
}

const MENU: &[(&str, &[Entry])] = &[
    (
        "",
        &[
            Entry { part: "overview", name: "Overview", href: "/console" },
            Entry { part: "runs", name: "Runs", href: "/console/runs" },
            Entry { part: "incidents", name: "Incidents", href: "/console/incidents" },
            Entry { part: "effects", name: "Effects", href: "/console/effects" },
            Entry { part: "plans", name: "Plans", href: "/console/plans" },
            Entry { part: "decisions", name: "Decisions", href: "/console/decisions" },
            Entry { part: "jobs", name: "Jobs", href: "/console/jobs" },
        ],
    ),
    (
        "Work",
        &[
            Entry { part: "workflows", name: "Workflows", href: "/console/workflows" },
            Entry { part: "schedules", name: "Schedules", href: "/console/schedules" },
            Entry { part: "queues", name: "Queues", href: "/console/queues" },
            Entry { part: "workers", name: "Workers", href: "/console/workers" },
            Entry { part: "keys", name: "Keys and facts", href: "/console/keys" },
            Entry { part: "requests", name: "Start requests", href: "/console/start-requests" },
        ],
    ),
    (
        "Documents",
        &[
            Entry { part: "events", name: "Events", href: "/console/events" },
            Entry { part: "sources", name: "Sources", href: "/console/sources" },
            Entry { part: "contracts", name: "Contracts", href: "/console/contracts" },
        ],
    ),
    (
        "Who",
        &[
            Entry { part: "credentials", name: "Credentials", href: "/console/credentials" },
            Entry { part: "limits", name: "Limits", href: "/console/limits" },
            Entry { part: "erasures", name: "Erasures", href: "/console/erasures" },
            Entry { part: "audit", name: "Audit", href: "/console/audit" },
        ],
    ),
];

impl Frame {
    pub(crate) fn new(ask: &Ask, who: Who, part: &'static str, title: impl Into<String>) -> Frame {
        let done = ask.param("done").filter(|word| is_word(word)).map(str::to_owned);
        Frame {
            title: title.into(),
            part,
            who: Some(who),
            token: ask.form_token(),
            place: place_without_done(&ask.place),
            done,
            version: assets::VERSION,
        }
    }

    /// Returns a frame without a menu.
    pub(crate) fn bare(title: &str) -> Frame {
        Frame {
            title: title.to_owned(),
            part: "",
            who: None,
            token: String::new(),
            place: "/console".to_owned(),
            done: None,
            version: assets::VERSION,
        }
    }

    pub(crate) fn menu(&self) -> &'static [(&'static str, &'static [Entry])] {
        if self.who.is_some() { MENU } else { &[] }
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.who.as_ref().is_some_and(Who::is_admin)
    }

    pub(crate) fn may_act(&self) -> bool {
        self.who.as_ref().is_some_and(Who::may_act)
    }

    pub(crate) fn may_start(&self) -> bool {
        self.who.as_ref().is_some_and(Who::may_start)
    }
}

/// Returns whether it is the word for a verb that was done.
fn is_word(word: &str) -> bool {
    word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// Returns the address of a page without the word for what was done before it was shown.
pub(crate) fn place_without_done(place: &str) -> String {
    let Some((path, query)) = place.split_once('?') else { return place.to_owned() };
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("done=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

/// The page of a problem.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    problem: Problem,
    /// Address to go on to.
    back: String,
}

/// Response of a page that cannot be shown.
pub(crate) struct Failed(Box<Response>);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// Response of a page.
pub(crate) type Shown = Result<Response, Failed>;

/// Returns a page as an answer.
pub(crate) fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => {
            (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("The page could not be made: {error}"))
                .into_response()
        }
    }
}

pub(crate) fn ok(page: &impl Template) -> Shown {
    Ok(html(StatusCode::OK, page))
}

impl Ask {
    /// Returns the response in place of a page that met `problem`: the page to sign in, if it is
    /// that.
    pub(crate) async fn failed(&self, problem: Problem) -> Failed {
        if problem.status == 401 {
            return Failed(Box::new(self.sign_in()));
        }
        let title = problem.title.clone();
        let frame = match self.who().await {
            Ok(who) => Frame::new(self, who, "", title),
            Err(_) => Frame::bare(&title),
        };
        let status = StatusCode::from_u16(problem.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let back = self.param("back").filter(|back| is_local(back)).unwrap_or("/console");
        let page = ProblemPage { frame, problem, back: back.to_owned() };
        Failed(Box::new(html(status, &page)))
    }

    /// Shows the page of a problem, with the way back.
    pub(crate) async fn refused(&self, problem: Problem, back: String) -> Response {
        if problem.status == 401 {
            return self.sign_in();
        }
        let frame = match self.who().await {
            Ok(who) => Frame::new(self, who, "", problem.title.clone()),
            Err(_) => Frame::bare(&problem.title),
        };
        let status = StatusCode::from_u16(problem.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        html(status, &ProblemPage { frame, problem, back })
    }

    fn sign_in(&self) -> Response {
        if self.comes_from_elsewhere() {
            return Html(arriving(&self.place)).into_response();
        }
        if !is_local(&self.place) || self.place.starts_with("/console/act") {
            return Redirect::to("/console/login").into_response();
        }
        let next = encoded(&self.place);
        Redirect::to(&format!("/console/login?next={next}")).into_response()
    }
}

/// Returns whether an address is that of a page of the console.
pub(crate) fn is_local(place: &str) -> bool {
    let rest = place.strip_prefix("/console");
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    rest.is_some_and(|rest| !rest.contains(['\\', '\r', '\n']) && rest.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_console_are_gone_back_to() {
        for place in ["/console", "/console?x=1", "/console/runs?state=paused"] {
            assert!(is_local(place), "{place}");
        }
        for place in
            ["", "//evil.example", "https://evil.example", "/consoles", "/console\\x", "/v1/runs"]
        {
            assert!(!is_local(place), "{place}");
        }
    }

    #[test]
    fn what_was_done_is_said_once() {
        assert_eq!(
            place_without_done("/console/runs?state=paused&done=pause"),
            "/console/runs?state=paused"
        );
        assert_eq!(place_without_done("/console/runs?done=pause"), "/console/runs");
        assert!(is_word("mark-compensated") && !is_word("<b>"));
    }
}
