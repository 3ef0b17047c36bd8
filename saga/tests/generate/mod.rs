//! Random documents, expressions and definitions.

use backstitch_saga::{
    Child, Class, Compensate, Definition, Empty, Expr, Fail, Jitter, Join, Losers, Map, OnFailure,
    OnKill, OnPause, OnTimeout, OnUnknown, Payload, Retry, Sleep, Span, Step, Task, Timeouts,
    Tolerance, Verify, Wait,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]{1,2}", 1 => "[a-z]{7,10}", 1 => "[\"/~\\\\\néü😀 ]{0,3}", 1 => ".{0,12}"]
        .prop_map(|key| key.replace('\0', ""))
}

/// Generates a document.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e12..1e12).prop_map(|number: f64| Value::from((number * 8.0).round() / 8.0)),
        key().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(key(), inner, 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Spells a document in one of many ways: white space, order of members, escapes in keys. Equal seeds spell alike.
pub(crate) fn spell(value: &Value, seed: u64) -> String {
    let mut text = String::new();
    let mut chance = Chance(seed | 1);
    spell_into(value, &mut chance, &mut text);
    text
}

struct Chance(u64);

impl Chance {
    fn one_in(&mut self, count: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(count)
    }

    fn space(&mut self, text: &mut String) {
        while self.one_in(4) {
            text.push(if self.one_in(2) { ' ' } else { '\n' });
        }
    }
}

fn spell_into(value: &Value, chance: &mut Chance, text: &mut String) {
    chance.space(text);
    match value {
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                spell_into(value, chance, text);
            }
            chance.space(text);
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if chance.one_in(2) {
                members.reverse();
            }
            text.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                chance.space(text);
                spell_string(key, chance, text);
                chance.space(text);
                text.push(':');
                spell_into(value, chance, text);
            }
            chance.space(text);
            text.push('}');
        }
        Value::String(string) => spell_string(string, chance, text),
        leaf => {
            let plain = leaf.to_string();
            text.push_str(&plain);
            // An integer would be read as a float.
            if plain.contains('.') && !plain.contains('e') {
                text.push_str(if chance.one_in(3) { "0" } else { "" });
                text.push_str(if chance.one_in(3) { "E+00" } else { "" });
            }
        }
    }
    chance.space(text);
}

fn spell_string(key: &str, chance: &mut Chance, text: &mut String) {
    if !chance.one_in(4) {
        text.push_str(&Value::from(key).to_string());
        return;
    }
    text.push('"');
    for unit in key.encode_utf16() {
        text.push_str(&format!("\\u{unit:04x}"));
    }
    text.push('"');
}

/// Changes of a text: the approximate place, the inserted text, and the number of replaced characters.
pub(crate) type Changes = Vec<(prop::sample::Index, String, usize)>;

/// Generates a few changes, of the kind that makes trouble.
pub(crate) fn changes() -> impl Strategy<Value = Changes> {
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}:,\"\\\\0-9eE.+\\- \ttnu]",
        Just("\"a\":1,".to_owned()),
        Just("\\u0000".to_owned()),
        Just("\\ud800".to_owned()),
        Just("\\udc00".to_owned()),
        Just("\\u0061".to_owned()),
        Just("1e999".to_owned()),
        Just("null".to_owned()),
        Just("[".repeat(40)),
    ];
    vec((any::<prop::sample::Index>(), piece, 0_usize..3), 0..4)
}

/// Returns the text with these changes.
pub(crate) fn change(text: &str, changes: &Changes) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (place, piece, dropped) in changes {
        let from = place.index(characters.len() + 1);
        let to = (from + dropped).min(characters.len());
        characters.splice(from..to, piece.chars());
    }
    characters.into_iter().collect()
}

/// Generates the text of a document with a few changes.
pub(crate) fn mutated_text() -> impl Strategy<Value = String> {
    (json(), any::<u64>(), changes())
        .prop_map(|(value, seed, changes)| change(&spell(&value, seed), &changes))
}

/// Generates text that may be a document.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => (json(), any::<u64>()).prop_map(|(value, seed)| spell(&value, seed)),
        4 => mutated_text(),
        1 => "[\\[\\]{}:,\"\\\\0-9eE.\\- tnu]{0,12}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "(/input|/steps/[abc]|/item)(/[a-c0-2]{1,2}){0,2}",
        1 => Just("/index".to_owned()),
        1 => "/?[a-z~/]{0,6}",
    ]
}

/// Generates an expression.
pub(crate) fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        4 => path().prop_map(Expr::Path),
        2 => json().prop_map(|value| Expr::Const(Payload::of(&value).unwrap())),
        1 => any::<bool>().prop_map(|truth| Expr::Const(Payload::of(&truth).unwrap())),
        1 => path().prop_map(Expr::Exists),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        let pair = (inner.clone(), inner.clone()).prop_map(Box::new);
        prop_oneof![
            btree_map(key(), inner.clone(), 0..4).prop_map(Expr::Object),
            vec(inner.clone(), 0..4).prop_map(Expr::Array),
            pair.clone().prop_map(Expr::Eq),
            pair.clone().prop_map(Expr::Ne),
            pair.clone().prop_map(Expr::Lt),
            pair.clone().prop_map(Expr::Le),
            pair.clone().prop_map(Expr::Gt),
            pair.clone().prop_map(Expr::Ge),
            vec(inner.clone(), 0..4).prop_map(Expr::And),
            vec(inner.clone(), 0..4).prop_map(Expr::Or),
            inner.clone().prop_map(|inner| Expr::Not(Box::new(inner))),
            inner.prop_map(|inner| Expr::Length(Box::new(inner))),
            pair.prop_map(Expr::Default),
        ]
    })
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        (0_u64..400 * 86_400_000).prop_map(Span),
        (0_u64..100).prop_map(Span::secs),
        (0_u64..800).prop_map(Span::days),
    ]
}

fn retry() -> impl Strategy<Value = Retry> {
    let jitter =
        prop::sample::select(vec![Jitter::Full, Jitter::Equal, Jitter::Decorrelated, Jitter::None]);
    let count = option::of(0_u32..20);
    (
        count,
        span(),
        (-8..32).prop_map(|eighths| f64::from(eighths) / 8.0),
        span(),
        jitter,
        option::of(span()),
        vec("[a-z_]{0,8}", 0..3),
    )
        .prop_map(
            |(max_attempts, first_delay, multiplier, max_delay, jitter, total, errors)| Retry {
                max_attempts,
                first_delay,
                multiplier,
                max_delay,
                jitter,
                total,
                final_errors: errors,
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    (option::of(span()), span(), span(), option::of(span())).prop_map(
        |(to_start, attempt, heartbeat, step)| Timeouts { to_start, attempt, heartbeat, step },
    )
}

fn class() -> impl Strategy<Value = Option<Class>> {
    option::of(prop::sample::select(vec![
        Class::Compensatable,
        Class::Pivot,
        Class::Retriable,
        Class::ReadOnly,
    ]))
}

fn on_failure() -> impl Strategy<Value = OnFailure> {
    prop::sample::select(vec![OnFailure::Compensate, OnFailure::Incident, OnFailure::Continue])
}

fn task() -> impl Strategy<Value = Task> {
    let name = || "[a-zA-Z.]{0,6}";
    let compensate = (name(), option::of(name()), retry(), 0_u32..5).prop_map(
        |(name, queue, retry, alert_after)| Compensate {
            queue,
            retry,
            alert_after,
            ..Compensate::by(name)
        },
    );
    let verify = (name(), option::of(name()), retry()).prop_map(|(name, queue, retry)| Verify {
        name,
        queue,
        retry,
    });
    let on_unknown = prop::sample::select(vec![
        OnUnknown::Retry,
        OnUnknown::Verify,
        OnUnknown::Compensate,
        OnUnknown::Incident,
    ]);
    let handlers = (name(), name(), option::of(compensate), option::of(verify));
    let doubt = (on_unknown, 0_u32..5, any::<bool>());
    (handlers, expr(), class(), retry(), timeouts(), on_failure(), doubt).prop_map(
        |(
            (name, queue, compensate, verify),
            input,
            class,
            retry,
            timeouts,
            on_failure,
            (on_unknown, max_losses, transactional),
        )| {
            Task {
                name,
                queue,
                input,
                input_schema: None,
                output_schema: None,
                class,
                compensate,
                verify,
                retry,
                timeouts,
                on_failure,
                on_unknown,
                max_losses,
                transactional,
            }
        },
    )
}

fn map() -> impl Strategy<Value = Map> {
    let join = prop_oneof![
        Just(Join::All),
        Just(Join::Any),
        (0_u32..5).prop_map(Join::Quorum),
        (0_u32..5).prop_map(|count| Join::Tolerate(Tolerance::Count(count))),
        (-4..12).prop_map(|eighths| Join::Tolerate(Tolerance::Ratio(f64::from(eighths) / 8.0))),
        Just(Join::BestEffort),
    ];
    let losers = prop::sample::select(vec![Losers::Drain, Losers::Cancel, Losers::Compensate]);
    let empty = option::of(prop::sample::select(vec![Empty::Succeed, Empty::Fail]));
    (expr(), task(), join, empty, 0_u32..20_000, losers).prop_map(
        |(items, task, join, empty, max_concurrency, losers)| Map {
            items,
            key: None,
            task,
            join,
            empty,
            max_concurrency,
            losers,
        },
    )
}

fn wait() -> impl Strategy<Value = Wait> {
    let time = (option::of(span()), option::of(expr()));
    ("[a-zA-Z]{0,3}", time, on_failure(), option::of(expr()), option::of(".{0,5}")).prop_map(
        |(signal, (timeout, default), on_failure, assignee, title)| Wait {
            signal,
            signals: Vec::new(),
            timeout,
            default,
            on_failure,
            schema: None,
            assignee,
            title,
        },
    )
}

fn sleep() -> impl Strategy<Value = Sleep> {
    (option::of(span()), option::of(expr())).prop_map(|(span, until)| Sleep { span, until })
}

fn child() -> impl Strategy<Value = Child> {
    ("[a-zA-Z]{0,3}", option::of(0_u32..3), expr(), on_failure()).prop_map(
        |(workflow, version, input, on_failure)| Child {
            workflow,
            version,
            input,
            on_failure,
            on_kill: OnKill::default(),
            on_pause: OnPause::default(),
        },
    )
}

fn fail() -> impl Strategy<Value = Fail> {
    ("[a-zA-Z_]{0,3}", ".{0,5}", option::of(expr())).prop_map(|(code, message, details)| Fail {
        code,
        message,
        details,
    })
}

/// Generates any definition, mostly with mistakes.
pub(crate) fn definition() -> impl Strategy<Value = Definition> {
    let schema = || option::of(json().prop_filter("null is none", |value| !value.is_null()));
    let step = (
        "[abcA]{0,2}",
        vec("[abc]", 0..3),
        option::of(expr()),
        option::of(task().boxed()),
        option::of(map().boxed()),
        (
            option::of(wait().boxed()),
            option::of(sleep().boxed()),
            option::of(child().boxed()),
            option::of(fail().boxed()),
        ),
    )
        .prop_map(|(id, after, when, task, map, (wait, sleep, child, fail))| Step {
            id,
            after,
            when,
            task,
            map,
            wait,
            sleep,
            child,
            fail,
            emits: Vec::new(),
        });
    let head = ("[a-z9-]{0,5}", 0_u32..3, option::of(".{0,9}"), schema(), schema());
    let on_timeout = prop::sample::select(vec![OnTimeout::Compensate, OnTimeout::Incident]);
    (head, vec(step, 0..5), option::of(expr()), span(), on_timeout, span()).prop_map(
        |(head, steps, output, timeout, on_timeout, compensable_for)| {
            let (name, version, description, input_schema, output_schema) = head;
            let payload = |value: Value| Payload::of(&value).unwrap();
            Definition {
                name,
                version,
                description,
                input_schema: input_schema.map(payload),
                output_schema: output_schema.map(payload),
                steps,
                output,
                timeout,
                on_timeout,
                compensable_for,
                end_within: None,
                undo_budget: None,
                sequence: None,
                milestones: Vec::new(),
            }
        },
    )
}

/// Generates a definition whose only mistakes are those of classes: whether it can strand itself is left
/// to chance.
pub(crate) fn safe_definition() -> impl Strategy<Value = Definition> {
    let class = prop_oneof![
        3 => Just(Some(Class::Compensatable)),
        2 => Just(Some(Class::ReadOnly)),
        2 => Just(Some(Class::Retriable)),
        1 => Just(Some(Class::Pivot)),
        1 => Just(None),
    ];
    let step = (class, on_failure(), any::<bool>(), vec(any::<prop::sample::Index>(), 0..3));
    vec(step, 1..6).prop_map(|steps| {
        let steps =
            steps.into_iter().enumerate().map(|(at, (class, on_failure, fan_out, after))| {
                let after =
                    after.iter().filter(|_| at > 0).map(|other| format!("s{}", other.index(at)));
                safe_step(at, class, on_failure, fan_out, after.collect())
            });
        let text = r#"{"name":"case","version":1,"steps":[]}"#;
        Definition { steps: steps.rev().collect(), ..serde_json::from_str(text).unwrap() }
    })
}

fn safe_step(
    at: usize,
    class: Option<Class>,
    on_failure: OnFailure,
    fan_out: bool,
    after: Vec<String>,
) -> Step {
    let mut task: Task = serde_json::from_str(r#"{"name":"h","input":{"const":1}}"#).unwrap();
    task.class = class;
    task.on_failure = on_failure;
    if class == Some(Class::Compensatable) {
        task.compensate = Some(serde_json::from_str(r#"{"name":"u"}"#).unwrap());
    }
    let mut step: Step = serde_json::from_str(r#"{"id":"x"}"#).unwrap();
    (step.id, step.after) = (format!("s{at}"), after);
    if !fan_out {
        return Step { task: Some(task), ..step };
    }
    let map = Map {
        items: Expr::path("/input"),
        key: None,
        task,
        join: Join::All,
        empty: Some(Empty::Succeed),
        max_concurrency: 1,
        losers: Losers::Drain,
    };
    Step { map: Some(map), ..step }
}
