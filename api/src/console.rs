//! Connects the web console to the server: signing in and out, and the parts of a request that its pages
//! take over.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use backstitch_console::{
    COOKIE, LoginPage, form_body, form_token, guard, is_of_this_site, session_of,
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::{self, Right};
use crate::app::{Access, App, Shared};
use crate::body;
use crate::logins::Peer;
use crate::problem::{self, Rejection};
use crate::turns::{self, Line};

/// Time that a browser keeps the cookie, in seconds; the server itself decides when a session is over.
const COOKIE_SECONDS: u32 = 12 * 3_600;

/// Returns the pages, which ask the routes `api`.
pub(crate) fn router(api: Router, app: Arc<App>) -> Router {
    let open = app.access == Access::Open;
    let doors = Router::new()
        .route("/console/login", get(page).post(login))
        .route("/console/logout", post(logout))
        .layer(map_response(dress))
        .with_state(app.clone());
    backstitch_console::router(api, carry, open)
        .merge(doors)
        .layer(from_fn_with_state(app, in_turn))
        .layer(CatchPanicLayer::custom(problem::panicked))
}

/// Delays a request for a page until its address has its turn, before anything is done for it. The requests of the page
/// to the API take turns of their own.
async fn in_turn(State(app): Shared, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    if let Some(peer) = peer {
        let cost = turns::cost_of(body::size(request.headers()));
        if let Err(rejection) = app.turn(&Line::Peer(peer.counted()), cost).await {
            return rejection.into_response();
        }
    }
    next.run(request).await
}

/// Carries the address of the peer over, by which failed logins are counted.
fn carry(from: &Extensions, to: &mut Extensions) {
    if let Some(peer) = from.get::<Peer>() {
        to.insert(*peer);
    }
}

async fn dress(mut response: Response) -> Response {
    guard(response.headers_mut());
    response
}

/// Returns one value of a query or a form.
fn value(text: &[u8], name: &str) -> String {
    let mut pairs = form_urlencoded::parse(text);
    pairs.find(|(known, _)| known == name).map_or_else(String::new, |(_, value)| value.into_owned())
}

async fn page(State(app): Shared, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let page = LoginPage::new(&value(query.as_bytes(), "next"), None);
    if app.access == Access::Open {
        return Redirect::to(page.next()).into_response();
    }
    Html(page.text()).into_response()
}

/// Exchanges the secret of a credential for a session.
async fn login(State(app): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().copied();
    let body = form_body(body).await.unwrap_or_default();
    let next = value(&body, "next");
    match exchange(&app, &parts.headers, peer, &body).await {
        Ok(cookie) => {
            let mut response = Redirect::to(LoginPage::new(&next, None).next()).into_response();
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(rejection) => {
            let (status, detail) = rejection.for_page();
            let page = LoginPage::new(&next, Some(detail.to_owned()));
            (status, Html(page.text())).into_response()
        }
    }
}

async fn exchange(
    app: &App,
    headers: &HeaderMap,
    peer: Option<Peer>,
    body: &Bytes,
) -> Result<HeaderValue, Rejection> {
    if !is_of_this_site(headers) {
        let detail = "The form was not sent by a page of this server.";
        return Err(Rejection::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let secret = value(body, "secret");
    if !secret.trim().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(access::unknown_credential());
    }
    let mut asked = HeaderMap::new();
    let bearer = HeaderValue::try_from(format!("Bearer {}", secret.trim()));
    let bearer = bearer.map_err(|_| access::unknown_credential())?;
    asked.insert(header::AUTHORIZATION, bearer);
    let caller = access::admit(app, &asked, Right::Read, (peer, Instant::now())).await?;
    let digest = caller.digest.ok_or_else(access::unknown_credential)?;
    let session = app.engine.begin_console_session(digest).await?;
    let session = session.ok_or_else(access::unknown_credential)?;
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let secure = app.tls.is_some() || origin.is_some_and(|origin| origin.starts_with("https://"));
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={}; Path=/console; HttpOnly; SameSite=Strict; Max-Age={COOKIE_SECONDS}{secure}",
        session.secret
    );
    HeaderValue::try_from(cookie).map_err(|error| Rejection::bug(error.to_string()))
}

/// Ends the session, here and on all other servers.
async fn logout(State(app): Shared, headers: HeaderMap, body: Body) -> Response {
    let body = form_body(body).await.unwrap_or_default();
    let mut response = Redirect::to("/console/login").into_response();
    let Some(secret) = session_of(&headers) else { return response };
    if !is_of_this_site(&headers) || value(&body, "token") != form_token(&secret) {
        let detail = "The form was not sent by a page of this session.";
        return Rejection::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response();
    }
    if let Err(error) = app.engine.end_console_session(&secret).await {
        return Rejection::from(error).into_response();
    }
    let gone = format!("{COOKIE}=; Path=/console; HttpOnly; SameSite=Strict; Max-Age=0");
    if let Ok(gone) = HeaderValue::try_from(gone) {
        response.headers_mut().insert(header::SET_COOKIE, gone);
    }
    response
}
