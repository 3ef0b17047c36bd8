//! Who may do what: every role on every route, and nobody without a credential.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Operation, Server, operations, send, with_json};
use uuid::Uuid;

async fn ask(server: &Server, operation: &Operation, id: &str, secret: Option<&str>) -> Answer {
    let mut request = server.request(&operation.method, &operation.path(id));
    if let Some(secret) = secret {
        request = request.bearer_auth(secret);
    }
    send(match &operation.body {
        // The example of a claim waits; nothing will come.
        Some(body) => with_json(request, body.to_string().replace("\"20s\"", "\"0s\"")),
        None => request,
    })
    .await
}

#[tokio::test]
async fn every_role_on_every_route() {
    let server = Server::start(Access::Keys).await;
    let roles = [
        (Role::Operator, &["read", "start", "act"][..]),
        (Role::Starter, &["read", "start"]),
        (Role::Worker, &["read", "work", "register"]),
        (Role::Viewer, &["read"]),
        // Last, because it may revoke and make what the others ask for.
        (Role::Admin, &["read", "start", "act", "work", "register", "admin"]),
    ];
    let id = Uuid::new_v4().to_string();
    let (mut allowed, mut refused) = (0, 0);
    for (role, rights) in roles {
        let name = format!("{role:?}").to_lowercase();
        let secret = server.engine.create_credential(NS, &name, role).await.unwrap();
        for operation in operations() {
            let Some(right) = &operation.right else { continue };
            let answer = ask(&server, &operation, &id, Some(&secret)).await;
            if rights.contains(&right.as_str()) {
                assert!(
                    ![401, 403, 500, 503].contains(&answer.status),
                    "{role:?} {operation:?} {answer:?}"
                );
                allowed += 1;
            } else {
                assert_eq!(answer.problem(403), "forbidden", "{role:?} {operation:?}");
                refused += 1;
            }
        }
    }
    assert!(allowed > 50 && refused > 30, "{allowed} allowed, {refused} refused");
    server.stopped().await;
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_credential() {
    let server = Server::start(Access::Keys).await;
    let revoked = server.engine.create_credential(NS, "gone", Role::Admin).await.unwrap();
    server.engine.revoke_credential(NS, "gone").await.unwrap();
    for operation in operations() {
        let id = Uuid::new_v4().to_string();
        let nobody = ask(&server, &operation, &id, None).await;
        if operation.right.is_none() {
            assert_eq!(nobody.status, 200, "{operation:?}");
            continue;
        }
        assert_eq!(nobody.problem(401), "credential_missing", "{operation:?}");
        assert!(nobody.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
        for secret in ["bsk_0000", "' or 1=1 --", revoked.as_str()] {
            let answer = ask(&server, &operation, &id, Some(secret)).await;
            assert_eq!(answer.problem(401), "credential_unknown", "{operation:?} {secret}");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn an_admin_makes_and_revokes_credentials() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let put = || with_json(server.request("PUT", "/v1/credentials/w-1"), r#"{"role":"worker"}"#);
    let made = send(put().bearer_auth(&admin)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("bsk_"));
    assert_eq!(send(put().bearer_auth(&admin)).await.problem(409), "credential_conflict");
    let who = || server.request("GET", "/v1/whoami").bearer_auth(&secret);
    let expected =
        serde_json::json!({ "name": "w-1", "namespace": NS, "role": "worker", "open": false });
    assert_eq!(send(who()).await.json(), expected);
    let foreign = who().header("backstitch-namespace", "other");
    assert_eq!(send(foreign).await.problem(403), "forbidden");
    let delete = || server.request("DELETE", "/v1/credentials/w-1").bearer_auth(&admin);
    assert_eq!(send(delete()).await.status, 204);
    assert_eq!(send(delete()).await.problem(404), "unknown_credential");
    assert_eq!(send(who()).await.problem(401), "credential_unknown");
    server.stopped().await;
}
