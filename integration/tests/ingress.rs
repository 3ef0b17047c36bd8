//! Ingress: the vectors that senders publish, and what is refused in which order.

use backstitch_integration::contracts::{Schema, World};
use backstitch_integration::document::read;
use backstitch_integration::events::Trust;
use backstitch_integration::ingress::{
    Accepted, Duplicate, Headers, Rejected, Request, SchemeDocument, Source, SourceDocument,
    Subject, Verification, VersionState, duplicate,
};
use backstitch_saga::Time;
use proptest::prelude::*;

const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";

/// One signed request.
struct Vector {
    scheme: &'static str,
    secret: &'static str,
    body: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// Seconds.
    now: i64,
}

/// GitHub, Slack and Standard Webhooks publish these. Stripe and Shopify publish none: theirs were computed with
/// another implementation of HMAC.
const VECTORS: &[Vector] = &[
    Vector {
        scheme: "github",
        secret: "It's a Secret to Everybody",
        body: "Hello, World!",
        headers: &[(
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        now: 0,
    },
    Vector {
        scheme: "slack",
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        body: SLACK_BODY,
        headers: &[
            ("X-Slack-Request-Timestamp", "1531420618"),
            (
                "X-Slack-Signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
        ],
        now: 1_531_420_618,
    },
    Vector {
        scheme: "standard_webhooks",
        secret: "whsec_plJ3nmyCDGBKInavdOK15jsl",
        body: r#"{"event_type":"ping","data":{"success":true}}"#,
        headers: &[
            ("webhook-id", "msg_loFOjxBNrRLzqYUf"),
            ("webhook-timestamp", "1731705121"),
            ("webhook-signature", "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="),
        ],
        now: 1_731_705_121,
    },
    Vector {
        scheme: "standard_webhooks",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        body: r#"{"test": 2432232314}"#,
        headers: &[
            ("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("Webhook-Timestamp", "1614265330"),
            (
                "Webhook-Signature",
                "v2,bm9uZQ== v1,bm9uZQ== v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        now: 1_614_265_330,
    },
    Vector {
        scheme: "stripe",
        secret: "whsec_test_secret",
        body: r#"{"id":"evt_test","object":"event"}"#,
        headers: &[(
            "Stripe-Signature",
            "t=1700000000,v0=00,v1=8042376f6ca064adbe037642a718227dfd59047137eb49497a54c49eb0cfb724",
        )],
        now: 1_700_000_000,
    },
    Vector {
        scheme: "shopify",
        secret: "test-webhook-secret",
        body: r#"{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}"#,
        headers: &[("X-Shopify-Hmac-SHA256", "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw=")],
        now: 0,
    },
];

fn verification(scheme: &str, secrets: &[&str]) -> Verification {
    let document: SchemeDocument =
        serde_json::from_str(&format!(r#"{{"scheme":"{scheme}"}}"#)).expect("a preset");
    Verification::new(&document, secrets, 300).expect("it is right")
}

/// Verifies a request, and returns the trust or the code of the refusal.
fn verify(
    verification: &Verification,
    headers: &[(&str, &str)],
    body: &[u8],
    now: i64,
) -> Result<Trust, &'static str> {
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let verified = verification.verify(&Headers::new(&headers), body, Time(now * 1_000));
    verified.map(|verified| verified.trust).map_err(|refused| refused.code)
}

#[test]
fn the_vectors_of_the_senders_are_verified_and_nothing_beside_them() {
    for vector in VECTORS {
        let (name, body) = (vector.scheme, vector.body.as_bytes());
        let one = verification(name, &[vector.secret]);
        assert_eq!(verify(&one, vector.headers, body, vector.now), Ok(Trust::Signed), "{name}");
        // The second of two secrets, too.
        let other =
            if name == "standard_webhooks" { "whsec_AAAAAAAAAAAAAAAA" } else { "another secret" };
        let two = verification(name, &[other, vector.secret]);
        assert_eq!(verify(&two, vector.headers, body, vector.now), Ok(Trust::Signed), "{name}");
        let wrong = verification(name, &[other]);
        assert_eq!(
            verify(&wrong, vector.headers, body, vector.now),
            Err("signature_invalid"),
            "{name}"
        );
        // One byte more, one byte changed.
        for changed in [format!("{} ", vector.body), vector.body.replacen('e', "f", 1)] {
            assert_eq!(
                verify(&one, vector.headers, changed.as_bytes(), vector.now),
                Err("signature_invalid"),
                "{name}"
            );
        }
        for (index, (header, value)) in vector.headers.iter().enumerate() {
            let mut fewer = vector.headers.to_vec();
            fewer.remove(index);
            assert_eq!(
                verify(&one, &fewer, body, vector.now),
                Err("signature_missing"),
                "{name} without {header}"
            );
            let mut twice = vector.headers.to_vec();
            twice.push((header, value));
            assert_eq!(
                verify(&one, &twice, body, vector.now),
                Err("signature_invalid"),
                "{name} {header} twice"
            );
            let mut changed = vector.headers.to_vec();
            let other = format!("{value}0");
            changed[index].1 = &other;
            assert!(verify(&one, &changed, body, vector.now).is_err(), "{name} {header} changed");
        }
        if vector.now > 0 {
            for (seconds, expected) in [
                (300, Ok(Trust::Signed)),
                (-300, Ok(Trust::Signed)),
                (301, Err("timestamp_out_of_tolerance")),
                (-301, Err("timestamp_out_of_tolerance")),
            ] {
                assert_eq!(
                    verify(&one, vector.headers, body, vector.now + seconds),
                    expected,
                    "{name} {seconds}"
                );
            }
        }
    }
}

fn configured(document: &str, secrets: &[&str]) -> Verification {
    let document: SchemeDocument = serde_json::from_str(document).expect("a scheme");
    Verification::new(&document, secrets, 300).unwrap_or_else(|message| panic!("{message}"))
}

#[test]
fn basic_bearer_and_certificates_are_compared_whole() {
    let basic = configured(r#"{"scheme":"basic","user":"Aladdin"}"#, &["open sesame"]);
    // The example of RFC 7617.
    for (value, expected) in [
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Ok(Trust::Authenticated)),
        ("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", Ok(Trust::Authenticated)),
        ("Basic QWxhZGRpbjpvcGVuIHNlc2Ft", Err("signature_invalid")),
        ("Basic QWxhZGRpbg==", Err("signature_invalid")),
        ("Basic ?", Err("signature_invalid")),
        ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Err("signature_invalid")),
        ("", Err("signature_missing")),
    ] {
        assert_eq!(verify(&basic, &[("Authorization", value)], b"", 0), expected, "{value}");
    }
    let bearer = configured(r#"{"scheme":"bearer"}"#, &["old-token", "new-token"]);
    for (value, expected) in [
        ("Bearer old-token", Ok(Trust::Authenticated)),
        ("BEARER new-token", Ok(Trust::Authenticated)),
        ("Bearer new-token2", Err("signature_invalid")),
        ("Bearer", Err("signature_invalid")),
    ] {
        assert_eq!(verify(&bearer, &[("authorization", value)], b"", 0), expected, "{value}");
    }
    let proxy = configured(
        r#"{"scheme":"mutual_tls","header":"X-Client-Cert","allowed":["CN=a","CN=b"]}"#,
        &[],
    );
    for (value, expected) in [
        ("CN=b", Ok(Trust::Authenticated)),
        ("CN=c", Err("signature_invalid")),
        ("CN=a,CN=b", Err("signature_invalid")),
        ("", Err("signature_missing")),
    ] {
        assert_eq!(verify(&proxy, &[("x-client-cert", value)], b"", 0), expected, "{value}");
    }
    let none = configured(r#"{"scheme":"none"}"#, &[]);
    assert_eq!(verify(&none, &[], b"", 0), Ok(Trust::Unverified));
}

#[test]
fn a_scheme_that_protects_nothing_is_refused_without_telling_the_secret() {
    for (document, secrets) in [
        (r#"{"scheme":"github"}"#, &[][..]),
        (r#"{"scheme":"github"}"#, &["one secret", "two secret", "three secret"]),
        (r#"{"scheme":"github"}"#, &["short"]),
        (r#"{"scheme":"none"}"#, &["a secret of none"]),
        (r#"{"scheme":"standard_webhooks"}"#, &["whsec_not base64!"]),
        (r#"{"scheme":"hmac","header":"X-Sig","signed":"{ts}.{body}"}"#, &["long enough"]),
        (r#"{"scheme":"hmac","header":"X-Sig","timestamp_header":"X-Ts"}"#, &["long enough"]),
        (r#"{"scheme":"hmac","header":"X-Sig","signed":"constant"}"#, &["long enough"]),
        (r#"{"scheme":"hmac","header":"X-Sig","signed":"{body}{body}"}"#, &["long enough"]),
        (r#"{"scheme":"hmac","header":"X Sig"}"#, &["long enough"]),
        (r#"{"scheme":"basic","user":"a:b"}"#, &["long enough"]),
        (r#"{"scheme":"mutual_tls","header":"X-Cert","allowed":[]}"#, &[]),
    ] {
        let scheme: SchemeDocument = serde_json::from_str(document).expect(document);
        let message = Verification::new(&scheme, secrets, 300).expect_err(document);
        assert!(secrets.iter().all(|secret| !message.contains(secret)), "{message}");
    }
    for document in
        [r#"{"scheme":"github","header":"X"}"#, r#"{"scheme":"md5"}"#, r#"{"scheme":"none","x":1}"#]
    {
        assert!(serde_json::from_str::<SchemeDocument>(document).is_err(), "{document}");
    }
    let printed = format!("{:?}", configured(r#"{"scheme":"bearer"}"#, &["do-not-print"]));
    assert!(!printed.contains("do-not-print"), "{printed}");
    let free = configured(
        r#"{"scheme":"hmac","header":"X-Sig","algorithm":"sha512","encoding":"base64","prefix":"s=","signed":"{ts}|{body}","timestamp_header":"X-Ts"}"#,
        &["long enough"],
    );
    let signature = "s=I5YJpB5r/wkJ6xZ9PMQ1f/ZshXfGzcT8FqR6WEetWUKr0YpZykeLvRtu/o9OO7wdY2L4CEVkbbd7B7oPKt2iLg==";
    assert_eq!(
        verify(&free, &[("x-sig", signature), ("x-ts", "5")], b"body", 5),
        Ok(Trust::Signed)
    );
    assert_eq!(
        verify(&free, &[("x-sig", signature), ("x-ts", "6")], b"body", 5),
        Err("signature_invalid")
    );
}

const SOURCE: &str = r#"{"verify":{"scheme":"bearer"},
    "accepts":[{"match":{"header":"X-Event","is":"contact"},"contract":"crm.contact"},{"match":{"pointer":"/kind","is":"order"},"contract":"crm.order"}],
    "version_from":{"pointer":"/v"},"dedupe":[{"header":"X-Id"},{"pointer":"/id"}],
    "hints":[{"kind":"email","at":"/mail"}],"max_bytes":1000}"#;

fn source(edit: impl FnOnce(&mut SourceDocument)) -> Source {
    let mut document: SourceDocument = serde_json::from_str(SOURCE).expect("a source");
    edit(&mut document);
    Source::new(document, &["a-token-of-a-source"]).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

/// A request that is accepted, and what is changed of it.
#[derive(Clone)]
struct Sent {
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

fn sent(body: &str) -> Sent {
    Sent {
        headers: vec![
            ("Content-Type", "application/json; charset=utf-8"),
            ("Authorization", "Bearer a-token-of-a-source"),
            ("X-Event", "contact"),
            ("X-Id", "d1"),
        ],
        body: body.as_bytes().to_vec(),
    }
}

fn check(source: &Source, sent: &Sent) -> Result<Accepted, Box<Rejected>> {
    let schema = |text: &str| {
        Schema::parse(&read(text.as_bytes(), 10_000).expect("JSON").1).expect("a schema")
    };
    let first =
        schema(r#"{"type":"object","required":["id"],"properties":{"id":{"type":"string"}}}"#);
    let second = schema(
        r#"{"type":"object","required":["id","name"],"properties":{"id":{"type":"string"},"name":{"type":"string","minLength":2}}}"#,
    );
    let subject = |name: &str| {
        (name == "crm.contact").then(|| Subject {
            versions: [
                (1, (VersionState::Retired, &first)),
                (2, (VersionState::Deprecated, &first)),
                (3, (VersionState::Active, &second)),
            ]
            .into(),
            world: World::Open,
        })
    };
    let headers: Vec<(&str, &[u8])> =
        sent.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let request = Request { headers: Headers::new(&headers), body: &sent.body, now: Time(0) };
    source.check(&request, &subject)
}

#[test]
fn a_request_is_accepted_with_what_tells_it_from_others() {
    let source = source(|_| ());
    let body = r#"{"id":"a","name":"Ann","v":3,"mail":"Ann@Example.COM","n":1.50}"#;
    let accepted = check(&source, &sent(body)).expect("it is right");
    assert_eq!(
        (accepted.contract.as_str(), accepted.version, accepted.deprecated),
        ("crm.contact", 3, false)
    );
    assert_eq!((accepted.payload.text(), accepted.trust), (body, Trust::Authenticated));
    let again = check(&source, &sent(body)).expect("it is right");
    assert_eq!(accepted.dedupe_key, again.dedupe_key);
    assert_eq!(duplicate(&accepted.digest, &again.digest), Duplicate::Same);
    let other = check(&source, &sent(&body.replace("1.50", "1.5"))).expect("it is right");
    assert_eq!(accepted.dedupe_key, other.dedupe_key);
    assert_eq!(duplicate(&accepted.digest, &other.digest), Duplicate::Conflict);
    // The parts of a key cannot be shifted.
    let mut shifted = sent(&body.replace(r#""a""#, r#""1a""#));
    shifted.headers[3].1 = "d";
    assert_ne!(check(&source, &shifted).expect("it is right").dedupe_key, accepted.dedupe_key);
    let deprecated = check(&source, &sent(r#"{"id":"a","v":"2"}"#)).expect("it is right");
    assert!(deprecated.deprecated);
}

#[test]
fn checks_come_in_their_order_each_with_its_code() {
    let plain = source(|_| ());
    // Each request has its own fault and all later ones, so that the order shows.
    let bad = "{\"v\":\"x\",\"v\":1";
    let header = |sent: &mut Sent, name: &str, value: &'static str| {
        sent.headers.iter_mut().find(|(header, _)| *header == name).expect("it is there").1 = value;
    };
    let mut wrong = sent(bad);
    wrong.body.extend(vec![b' '; 1_000]);
    header(&mut wrong, "Content-Type", "text/plain");
    header(&mut wrong, "Authorization", "");
    header(&mut wrong, "X-Event", "other");
    header(&mut wrong, "X-Id", "");
    let fails = |source: &Source, sent: &Sent, status: u16, code: &str, kept: bool| {
        let rejected = check(source, sent).expect_err(code);
        assert_eq!(
            (rejected.status, rejected.code, rejected.kept),
            (status, code, kept),
            "{}",
            rejected.message
        );
        assert!(!rejected.message.contains("a-token-of-a-source"));
        rejected
    };
    fails(&source(|source| source.enabled = false), &wrong, 403, "source_disabled", false);
    fails(&plain, &wrong, 413, "payload_too_large", false);
    wrong.body = bad.into();
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/+json",
        "",
    ] {
        header(&mut wrong, "Content-Type", content_type);
        fails(&plain, &wrong, 415, "content_type_not_supported", false);
    }
    for content_type in ["application/cloudevents+json", "APPLICATION/JSON;charset=\"UTF-8\""] {
        header(&mut wrong, "Content-Type", content_type);
        fails(&plain, &wrong, 401, "signature_missing", false);
    }
    header(&mut wrong, "Authorization", "Bearer another");
    fails(&plain, &wrong, 401, "signature_invalid", false);
    header(&mut wrong, "Authorization", "Bearer a-token-of-a-source");
    for (body, code) in [
        (bad, "invalid_json"),
        (r#"{"v":1,"v":1}"#, "duplicate_key"),
        (r#"{"v":"\u0000"}"#, "nul_character"),
        (r#"{"v":"\ud800"}"#, "lone_surrogate"),
        (r#"{"v":1e1000000}"#, "number_out_of_range"),
        (&"[".repeat(999), "invalid_json"),
        (&format!("{}{}", "[".repeat(400), "]".repeat(400)), "nesting_too_deep"),
    ] {
        wrong.body = body.into();
        fails(&plain, &wrong, 400, code, true);
    }
    wrong.body = b"{}".into();
    fails(&plain, &wrong, 422, "unknown_type", true);
    // A contract that nobody registered is as unknown.
    wrong.body = br#"{"kind":"order"}"#.into();
    fails(&plain, &wrong, 422, "unknown_type", true);
    header(&mut wrong, "X-Event", "contact");
    for (body, code) in [
        ("{}", "version_missing"),
        (r#"{"v":4}"#, "version_unknown"),
        (r#"{"v":"3; drop"}"#, "version_unknown"),
        (r#"{"v":99999999999}"#, "version_unknown"),
        (r#"{"v":1}"#, "version_retired"),
    ] {
        wrong.body = body.into();
        fails(&plain, &wrong, 422, code, true);
    }
    wrong.body = br#"{"v":3,"name":"A","mail":"ann@firm.org"}"#.into();
    let rejected = fails(&plain, &wrong, 422, "schema_violation", true);
    let places: Vec<(&str, &str)> =
        rejected.violations.iter().map(|one| (one.pointer.as_str(), one.code.as_str())).collect();
    assert_eq!(places, [("", "required"), ("/name", "minLength")]);
    // Hints are captured from what is refused, too.
    assert_eq!(rejected.hints.captured[0].value_norm.as_deref(), Some("ann@firm.org"));
    wrong.body = br#"{"v":3,"name":"Ann","id":"a"}"#.into();
    fails(&plain, &wrong, 422, "dedupe_key_missing", true);
}

#[test]
fn a_source_that_is_not_valid_is_refused_at_its_places() {
    let refused = |edit: &dyn Fn(&mut SourceDocument), place: &str| {
        let mut document: SourceDocument = serde_json::from_str(SOURCE).expect("a source");
        edit(&mut document);
        let wrong = Source::new(document, &["a-token-of-a-source"]).expect_err(place);
        assert!(wrong.iter().any(|one| one.pointer == place), "{place}: {wrong:?}");
    };
    refused(&|source| source.accepts.clear(), "/accepts");
    refused(&|source| source.accepts[0].when = None, "/accepts/0");
    refused(&|source| source.max_bytes = 0, "/max_bytes");
    refused(&|source| source.max_bytes = 6 << 20, "/max_bytes");
    refused(&|source| source.tolerance_s = 0, "/verify");
    refused(&|source| source.hints[0].kind = "E mail".to_owned(), "/hints/0/kind");
    refused(&|source| source.dedupe = vec![source.dedupe[0].clone(); 65], "/dedupe");
    refused(
        &|source| source.accepts[0].when.as_mut().expect("a condition").header = None,
        "/accepts/0/match",
    );
    assert!(
        serde_json::from_str::<SourceDocument>(&SOURCE.replace("max_bytes", "max_byte")).is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_header_and_no_body_make_a_verification_panic_or_pass(
        scheme in prop::sample::select(vec!["github", "stripe", "shopify", "slack", "standard_webhooks"]),
        values in proptest::collection::vec(any::<Vec<u8>>(), 8),
        text in "(t=|v1=|v0=|v1,|sha256=|[0-9a-f]{2}|,| |=|é){0,20}",
        body in any::<Vec<u8>>(),
    ) {
        let secret = if scheme == "standard_webhooks" { "whsec_AAAAAAAAAAAAAAAA" } else { "a secret of one" };
        let one = verification(scheme, &[secret]);
        let names = ["x-hub-signature-256", "stripe-signature", "x-shopify-hmac-sha256", "x-slack-signature", "x-slack-request-timestamp", "webhook-signature", "webhook-id", "webhook-timestamp"];
        let mut headers: Vec<(&str, &[u8])> = names.iter().copied().zip(values.iter().map(Vec::as_slice)).collect();
        prop_assert!(one.verify(&Headers::new(&headers), &body, Time(0)).is_err());
        for (_, value) in &mut headers {
            *value = text.as_bytes();
        }
        prop_assert!(one.verify(&Headers::new(&headers), &body, Time(0)).is_err());
    }

    #[test]
    fn no_request_makes_the_checks_panic(body in "[{\\[\"a-e:,0-9vid\\]}\\\\u]{0,40}") {
        let _ = check(&source(|_| ()), &sent(&body));
    }
}
