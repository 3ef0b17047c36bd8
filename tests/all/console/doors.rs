//! Access: sessions, and forms that no other site can send.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Server, send};

use super::{Viewer, client, sign_in};

/// Pages that need no run to be there.
pub(super) const PAGES: &[&str] = &[
    "/console",
    "/console/runs",
    "/console/incidents",
    "/console/effects",
    "/console/plans",
    "/console/decisions",
    "/console/jobs",
    "/console/jobs/new",
    "/console/workflows",
    "/console/schedules",
    "/console/queues",
    "/console/workers",
    "/console/events",
    "/console/sources",
    "/console/contracts",
    "/console/imports",
    "/console/mapping",
    "/console/links",
    "/console/readers",
    "/console/limits",
    "/console/erasures",
    "/console/keys",
    "/console/start-requests",
    "/console/audit",
    "/console/nothing/here",
];

#[tokio::test]
async fn nobody_sees_a_page_without_a_session() {
    let server = Server::start(Access::Keys).await;
    for page in PAGES {
        for cookie in ["", "backstitch_console=bss_0000", "backstitch_console='; --"] {
            let request = client().get(format!("{}{page}", server.url())).header("cookie", cookie);
            let answer = send(request).await;
            assert_eq!(answer.status, 303, "{page} {cookie}: {answer:?}");
            let location = answer.headers["location"].to_str().unwrap();
            assert!(location.starts_with("/console/login?next=%2Fconsole"), "{location}");
        }
    }
    let login = send(server.bare("GET", "/console/login")).await;
    assert!(login.status == 200 && login.text.contains("name=\"secret\""), "{login:?}");
    let act = send(client().post(format!("{}/console/act", server.url())).body("token=")).await;
    assert_eq!(act.headers["location"], "/console/login");
    server.stopped().await;
}

#[tokio::test]
async fn a_secret_is_exchanged_for_a_session_that_is_no_secret_of_the_credential() {
    let server = Server::start(Access::Keys).await;
    let secret = server.engine.create_credential(NS, "ann", Role::Operator).await.unwrap();
    let answer = sign_in(&server, &secret).await;
    assert_eq!(
        (answer.status, &answer.headers["location"]),
        (303, &"/console/runs".parse().unwrap())
    );
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("backstitch_console=bss_"), "{cookie}");
    for attribute in ["Path=/console", "HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{attribute}: {cookie}");
    }
    assert!(!cookie.contains("Secure"), "in plain text a browser would not keep it: {cookie}");
    let session = cookie.split(['=', ';']).nth(1).unwrap();
    assert_ne!(session, secret);
    let who = send(server.bare("GET", "/v1/whoami").bearer_auth(session)).await;
    assert_eq!((&who.json()["name"], &who.json()["role"]), (&"ann".into(), &"operator".into()));
    assert!(who.json()["expires_at"].is_string(), "{who:?}");
    // A session makes no other.
    assert_eq!(sign_in(&server, session).await.status, 401);
    for wrong in ["bsk_0000", "", "no\u{1F600}secret"] {
        let refused = sign_in(&server, wrong).await;
        assert!(
            refused.status == 401 && !refused.headers.contains_key("set-cookie"),
            "{refused:?}"
        );
        assert!(refused.text.contains("role=\"alert\""), "{refused:?}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_session_ends_with_its_credential_and_when_one_signs_out() {
    let server = Server::start(Access::Keys).await;
    let other = server.beside().await;
    let ann = Viewer::new(&server, "ann", Role::Viewer).await;
    let bob = Viewer::new(&server, "bob", Role::Viewer).await;
    assert!(ann.page("/console").await.contains("ann"));
    let at_other = |viewer: &Viewer<'_>| {
        let request = client().get(format!("{}/console", other.url()));
        send(request.header("cookie", &viewer.cookie))
    };
    assert_eq!(at_other(&ann).await.status, 200, "a session is good at every server");
    let forged = ann.post("/console/logout", &[("token", "0")]).await;
    assert_eq!((forged.status, ann.get("/console").await.status), (403, 200));
    let out = ann.post("/console/logout", &[("token", &ann.token().await)]).await;
    assert_eq!(out.status, 303);
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(ann.get("/console").await.status, 303);
    server.engine.revoke_credential(NS, "bob").await.unwrap();
    assert_eq!(bob.get("/console").await.status, 303);
    backstitch_tests::eventually("the other server has heard of both", async || {
        at_other(&ann).await.status == 303 && at_other(&bob).await.status == 303
    })
    .await;
    other.stopped().await;
    server.stopped().await;
}

#[tokio::test]
async fn a_form_that_was_forged_or_sent_by_another_site_does_nothing() {
    let server = Server::start(Access::Keys).await;
    let ann = Viewer::new(&server, "ann", Role::Operator).await;
    let eve = Viewer::new(&server, "eve", Role::Operator).await;
    let run = super::parked(&server, "order", "o-1", "declined").await;
    let path = format!("/v1/runs/{run}/cancel");
    let fields = |token: &str| {
        vec![
            ("token".to_owned(), token.to_owned()),
            ("method".to_owned(), "POST".to_owned()),
            ("path".to_owned(), path.clone()),
            ("f.s.reason".to_owned(), "r".to_owned()),
        ]
    };
    let send_as = async |token: &str, header: Option<(&str, &str)>| {
        let fields = fields(token);
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let mut request = ann.form("/console/act", &pairs);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        send(request).await
    };
    let (own, foreign) = (ann.token().await, eve.token().await);
    assert_ne!(own, foreign);
    for token in ["", "0", &foreign] {
        let answer = send_as(token, None).await;
        assert!(answer.status == 403 && answer.text.contains("form_not_ours"), "{answer:?}");
    }
    for header in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let answer = send_as(&own, Some(header)).await;
        assert_eq!(answer.status, 403, "{header:?} {answer:?}");
    }
    let page = ann.page(&format!("/console/runs/{run}")).await;
    assert!(page.contains("parked") && !page.contains("cancelled"), "{page}");
    let done = send_as(&own, Some(("origin", server.url()))).await;
    assert_eq!(done.status, 303, "{done:?}");
    server.stopped().await;
}

#[tokio::test]
async fn an_open_server_takes_forms_of_its_own_pages_only() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = super::parked(&server, "order", "o-1", "declined").await;
    let path = format!("/v1/runs/{run}/cancel");
    let token = viewer.token().await;
    for (token, status) in [("", 403), ("0123456789abcdef0123456789abcdef", 403), (&token, 303)] {
        let fields =
            [("token", token), ("method", "POST"), ("path", path.as_str()), ("f.s.reason", "r")];
        assert_eq!(viewer.post("/console/act", &fields).await.status, status, "{token}");
    }
    // A page of the internet whose own name leads to this machine.
    let request = client().get(format!("{}/console", server.url())).header("host", "evil.example");
    let rebound = send(request).await;
    assert!(rebound.status == 421 && !rebound.text.contains("name=\"token\""), "{rebound:?}");
    server.stopped().await;
}

#[tokio::test]
async fn pages_take_nothing_from_elsewhere_and_stand_in_no_frame() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    for path in
        PAGES.iter().chain(&["/console/login", "/console/assets/console.css", "/console/live"])
    {
        let answer = viewer.get(path).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "style-src 'self';",
            "frame-ancestors 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        for found in answer.text.match_indices("<script") {
            assert!(answer.text[found.0..].starts_with("<script src=\"/console/assets/"), "{path}");
        }
        assert!(!answer.text.contains(" style=") && !answer.text.contains(" onclick="), "{path}");
        assert!(!answer.text.contains("https://") && !answer.text.contains("http://"), "{path}");
    }
    server.stopped().await;
}
