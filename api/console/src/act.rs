//! Sends the request of a form to the API, in the name of its sender.

use askama::Template;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use backstitch_saga::Violation;
use backstitch_saga::protocol::CredentialSecret;
use serde::Deserialize;
use uuid::Uuid;

use crate::ask::{Ask, NAMESPACE, Problem, Wrong, form_body};
use crate::form::{document, filled};
use crate::page::{Frame, html, is_local, place_without_done};
use crate::show::{instant, moment};

/// The page at which a script goes on, in place of a redirect.
const GO_TO: HeaderName = HeaderName::from_static("hx-redirect");

/// Has a script show an answer instead of the page that it is on.
const INSTEAD_OF_THE_PAGE: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("hx-retarget"), "#main"),
    (HeaderName::from_static("hx-reselect"), "#main"),
    (HeaderName::from_static("hx-reswap"), "outerHTML"),
];

/// The id of what was made.
#[derive(Deserialize)]
struct Made {
    id: Option<Uuid>,
}

/// The problem of a form that was refused, shown beside it.
#[derive(Template)]
#[template(path = "refused.html")]
struct Refused {
    problem: Problem,
    /// Another idempotency key, where the answer is final for the one of the form.
    key: Option<String>,
}

/// The secret of a credential, which is shown this once.
#[derive(Template)]
#[template(path = "secret.html")]
struct SecretPage {
    frame: Frame,
    made: CredentialSecret,
    /// The ends of this secret and of the one before: a name, the instant, and the same for reading.
    until: Vec<(&'static str, String, String)>,
}

/// The fields of a form, in order.
struct Form(Vec<(String, String)>);

impl Form {
    fn of(body: &Bytes) -> Form {
        Form(form_urlencoded::parse(body).into_owned().collect())
    }

    /// Returns the last field of a name: what was answered beside a form comes after what the page said.
    fn text(&self, name: &str) -> &str {
        self.0.iter().rfind(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// Returns the page that it was sent on.
    fn back(&self) -> String {
        Some(self.text("back")).filter(|back| is_local(back)).unwrap_or("/console").to_owned()
    }
}

/// Executes the request of a form, and goes on to the page that it names. A script that sends a form gets the problem,
/// or the address to go on.
pub(crate) async fn act(ask: Ask, body: Body) -> Response {
    let (problem, back, has_key) = match form_body(body).await {
        Some(body) => {
            let form = Form::of(&body);
            match done(&ask, &form).await {
                Ok(response) => return for_script(&ask, response),
                Err(problem) => (problem, form.back(), !form.text("key").is_empty()),
            }
        }
        None => {
            let title = "The form is too large, or came too slowly";
            let problem = Problem::new(413, "body_too_large", title, "Nothing was done.");
            (problem, "/console".to_owned(), false)
        }
    };
    if ask.is_script() && problem.status != 401 {
        let key = (has_key && problem.status == 409).then(|| Uuid::new_v4().to_string());
        let status = StatusCode::from_u16(problem.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return html(status, &Refused { problem, key });
    }
    for_script(&ask, ask.refused(problem, back).await)
}

/// Lets a script go where a browser would be redirected.
fn for_script(ask: &Ask, response: Response) -> Response {
    match response.headers().get(header::LOCATION) {
        Some(place) if ask.is_script() => {
            (StatusCode::OK, [(GO_TO, place.clone())]).into_response()
        }
        _ => response,
    }
}

/// Does what a form asks for.
async fn done(ask: &Ask, form: &Form) -> Result<Response, Problem> {
    if !ask.is_ours(form.text("token")) {
        ask.who().await?;
        return Err(Problem::new(
            403,
            "form_not_ours",
            "The form was not taken",
            "It was not sent by a page of this console in this session, or the session began anew since. Nothing was \
             done. Load the page again.",
        ));
    }
    let method = match form.text("method") {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        "PATCH" => Method::PATCH,
        _ => return Err(unknown_act()),
    };
    let document =
        document(&form.0).map_err(|(name, message)| wrong(&name.replace('.', "/"), message))?;
    let path = filled(form.text("path"), &form.0, &document)
        .map_err(|name| wrong(&name, "It must be said.".to_owned()))?;
    if !path.starts_with("/v1/") {
        return Err(unknown_act());
    }
    // A deletion is named by its path alone.
    let body = (method != Method::DELETE).then(|| document.to_string());
    let key = Some(form.text("key")).filter(|key| method == Method::POST && !key.is_empty());
    let answer = ask.call(method, &path, body, key).await;
    if !answer.status.is_success() {
        return Err(answer.read::<serde_json::Value>().err().unwrap_or_default());
    }
    if let Ok(made) = serde_json::from_slice::<CredentialSecret>(&answer.body) {
        let frame = Frame::new(ask, ask.who().await?, "credentials", "A secret");
        let named =
            [("Good until", made.expires_at), ("The old one is good until", made.previous_until)];
        let told = |(name, at): (_, Option<_>)| at.map(|at| (name, instant(at), moment(at)));
        let until = named.into_iter().filter_map(told).collect();
        let page = html(StatusCode::OK, &SecretPage { frame, made, until });
        return Ok((INSTEAD_OF_THE_PAGE, page).into_response());
    }
    let made = serde_json::from_slice::<Made>(&answer.body).ok().and_then(|made| made.id);
    let to = Some(form.text("then")).filter(|then| is_local(then)).and_then(|then| {
        let then = match made {
            Some(id) => then.replace("{id}", &id.to_string()),
            None => then.to_owned(),
        };
        filled(&then, &form.0, &document).ok()
    });
    let to = place_without_done(&to.unwrap_or_else(|| form.back()));
    let word = crate::ask::encoded(form.text("word"));
    let mark = if to.contains('?') { '&' } else { '?' };
    Ok(Redirect::to(&format!("{to}{mark}done={word}")).into_response())
}

/// Returns the problem of something in a form that the API is not asked with.
fn wrong(name: &str, message: String) -> Problem {
    let title = "Something in the form is wrong";
    let mut problem = Problem::new(422, "invalid_request", title, "Nothing was done.");
    let Violation { pointer, code, message } =
        Violation::new(format!("/{name}"), "invalid_value", message);
    problem.errors.push(Wrong { pointer, code, message });
    problem
}

fn unknown_act() -> Problem {
    Problem::new(422, "invalid_request", "The form is none of ours", "Nothing was done.")
}

/// Looks at another namespace of an open server from now on. Elsewhere the credential says which it is.
pub(crate) async fn choose_namespace(ask: Ask, body: Body) -> Response {
    let form = Form::of(&form_body(body).await.unwrap_or_default());
    let mut response = Redirect::to("/console").into_response();
    let name = form.text("namespace");
    let is_slug = !name.is_empty()
        && name.len() <= 100
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        });
    if is_slug && ask.is_ours(form.text("token")) {
        let cookie = format!("{NAMESPACE}={name}; Path=/console; HttpOnly; SameSite=Strict");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
    }
    response
}
