//! Sends the request of a form to the API, in the name of its sender.

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Redirect, Response};
use backstitch_saga::Violation;
use serde::Deserialize;

use crate::ask::{Ask, NAMESPACE, Problem, Wrong, form_body};
use crate::form::document;
use crate::page::{is_local, place_without_done};

/// The id of what was made.
#[derive(Deserialize)]
struct Made {
    id: Option<uuid::Uuid>,
}

/// Does what a form asks for, and goes on to the page that it names.
pub(crate) async fn act(ask: Ask, body: Body) -> Response {
    let Some(body) = form_body(body).await else {
        let problem = Problem::new(
            413,
            "body_too_large",
            "The form is too large, or came too slowly",
            "Nothing was done.",
        );
        return ask.refused(problem, "/console".to_owned()).await;
    };
    let fields: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    let text = |name: &str| {
        fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    };
    let back = Some(text("back")).filter(|back| is_local(back)).unwrap_or("/console").to_owned();
    if !ask.is_ours(text("token")) {
        if ask.who().await.is_err_and(|problem| problem.status == 401) {
            return Redirect::to("/console/login").into_response();
        }
        let problem = Problem::new(
            403,
            "form_not_ours",
            "The form was not taken",
            "It was not sent by a page of this console in this session, or the session began anew since. Nothing was \
             done. Load the page again.",
        );
        return ask.refused(problem, back).await;
    }
    let (method, path) = (text("method"), text("path"));
    let method = match method {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        "PATCH" => Method::PATCH,
        _ => return ask.refused(unknown_act(), back).await,
    };
    if !path.starts_with("/v1/") {
        return ask.refused(unknown_act(), back).await;
    }
    let document = match document(&fields) {
        Ok(document) => document,
        Err((name, message)) => {
            let mut problem = Problem::new(
                422,
                "invalid_request",
                "Something in the form is wrong",
                "Nothing was done.",
            );
            let pointer = format!("/{}", name.replace('.', "/"));
            let Violation { pointer, code, message } =
                Violation::new(pointer, "invalid_value", message);
            problem.errors.push(Wrong { pointer, code: code.to_string(), message });
            return ask.refused(problem, back).await;
        }
    };
    // What is deleted is named by its path alone.
    let body = (method != Method::DELETE).then(|| document.to_string());
    let key = Some(text("key")).filter(|key| method == Method::POST && !key.is_empty());
    let answer = ask.call(method, path, body, key).await;
    if !answer.status.is_success() {
        let problem = answer.read::<serde_json::Value>().err().unwrap_or_default();
        return ask.refused(problem, back).await;
    }
    let made = serde_json::from_slice::<Made>(&answer.body).ok().and_then(|made| made.id);
    let then = Some(text("then")).filter(|then| is_local(then));
    let then = then.and_then(|then| Some(then.replace("{id}", &made?.to_string())));
    let to = place_without_done(&then.unwrap_or(back));
    let word = text("word");
    let mark = if to.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{to}{mark}done={}", crate::ask::encoded(word))).into_response()
}

fn unknown_act() -> Problem {
    Problem::new(422, "invalid_request", "The form is none of ours", "Nothing was done.")
}

/// Looks at another namespace of an open server from now on. Elsewhere the credential says which it is.
pub(crate) async fn choose_namespace(ask: Ask, body: Body) -> Response {
    let body = form_body(body).await.unwrap_or_default();
    let fields: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    let text = |name: &str| {
        fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    };
    let mut response = Redirect::to("/console").into_response();
    let name = text("namespace");
    let is_slug = !name.is_empty()
        && name.len() <= 100
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        });
    if is_slug && ask.is_ours(text("token")) {
        let cookie = format!("{NAMESPACE}={name}; Path=/console; HttpOnly; SameSite=Strict");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
    }
    response
}
