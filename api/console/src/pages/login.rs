//! The page to sign in.

use askama::Template;

use crate::page::{Frame, is_local};

/// The page to sign in.
#[derive(Template)]
#[template(path = "login.html")]
pub struct LoginPage {
    frame: Frame,
    /// The page that was asked for.
    next: String,
    /// The reason for which signing in failed.
    refused: Option<String>,
}

impl LoginPage {
    /// Returns the page, which leads on to `next`.
    #[must_use]
    pub fn new(next: &str, refused: Option<String>) -> LoginPage {
        let next = if is_local(next) { next.to_owned() } else { "/console".to_owned() };
        LoginPage { frame: Frame::bare("Sign in"), next, refused }
    }

    /// Returns the page as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.render().unwrap_or_default()
    }

    /// Returns the page to go on to.
    #[must_use]
    pub fn next(&self) -> &str {
        &self.next
    }
}

/// A viewer who follows a link of another site brings no cookie: the browser sends it once this page has loaded the
/// same address again.
#[derive(Template)]
#[template(path = "arriving.html")]
struct Arriving<'a> {
    next: &'a str,
}

/// Returns a page that loads `next` again, as a page of this site.
pub(crate) fn arriving(next: &str) -> String {
    let next = if is_local(next) { next } else { "/console" };
    Arriving { next }.render().unwrap_or_default()
}
