//! The workflows of stories, a line a step: `pay: after stock, undo, retry 3, on_unknown verify`.

use backstitch_saga::Graph;
use serde_json::{Map, Value, json};

/// Makes the workflow of these lines. Retries wait one second, doubling, without jitter, unless a line says
/// otherwise.
pub(crate) fn graph(lines: &[String]) -> Graph {
    let mut definition = json!({"name": "story", "version": 1, "steps": []});
    for line in lines {
        let (id, words) = line.split_once(':').unwrap();
        let traits: Vec<&str> =
            words.split(", ").map(str::trim).filter(|word| !word.is_empty()).collect();
        match id {
            "run" => run_traits(&mut definition, &traits),
            _ => definition["steps"].as_array_mut().unwrap().push(step(id, &traits)),
        }
    }
    let graph = Graph::parse(&definition.to_string()).unwrap_or_else(|errors| {
        panic!(
            "{definition:#}\n{}",
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        )
    });
    graph.with_outputs_checked()
}

fn run_traits(definition: &mut Value, traits: &[&str]) {
    for word in traits {
        let (name, value) = word.split_once(' ').unwrap();
        definition[name] = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    }
}

fn step(id: &str, traits: &[&str]) -> Value {
    let mut task = json!({
        "name": id,
        "input": {"path": "/input"},
        "retry": {"first_delay": "1s", "max_delay": "1m", "jitter": "none"},
    });
    let mut step = Map::from_iter([("id".to_owned(), json!(id))]);
    let mut map = None;
    let mut other = None;
    for word in traits {
        let (name, value) = word.split_once(' ').unwrap_or((word, ""));
        match name {
            "after" => step
                .insert("after".to_owned(), json!(value.split(' ').collect::<Vec<_>>()))
                .map_or((), drop),
            "when" => step
                .insert("when".to_owned(), serde_json::from_str(value).unwrap())
                .map_or((), drop),
            "input" => task["input"] = serde_json::from_str(value).unwrap(),
            "undo" => {
                task["compensate"] = json!({
                    "name": format!("undo-{id}").replace('-', "_"),
                    "retry": {"first_delay": "1s", "jitter": "none"},
                });
                if let Ok(max) = value.parse::<u32>() {
                    task["compensate"]["retry"]["max_attempts"] = json!(max);
                }
            }
            "slow" => task["compensate"]["slow_after"] = json!(value),
            "jitter" => task["retry"]["jitter"] = json!(value),
            "fail" => {
                let (code, message) = value.split_once(' ').unwrap();
                other = Some(("fail", json!({"code": code, "message": message})));
            }
            "details" => {
                other.as_mut().unwrap().1["details"] = serde_json::from_str(value).unwrap();
            }
            "alert" => task["compensate"]["alert_after"] = json!(value.parse::<u32>().unwrap()),
            "verify" => {
                task["verify"] = json!({"name": format!("find_{id}"), "retry": {"max_attempts": 2, "first_delay": "1s", "jitter": "none"}});
                task["on_unknown"] = json!("verify");
            }
            "pivot" | "retriable" | "read_only" => task["class"] = json!(name),
            "retry" => task["retry"]["max_attempts"] = json!(value.parse::<u32>().unwrap()),
            "total" => task["retry"]["total"] = json!(value),
            "final" => task["retry"]["final_errors"] = json!([value]),
            "on_unknown" | "on_failure" => task[name] = json!(value),
            "to_start" | "attempt" | "heartbeat" | "step" => task["timeouts"][name] = json!(value),
            "map" => {
                map = Some(json!({"items": {"path": value}, "join": "all", "empty": "succeed"}));
            }
            "join" => {
                map.as_mut().unwrap()["join"] =
                    serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            }
            "wait" => {
                let mut wait = match value.split_once('|') {
                    None => json!({"signal": value}),
                    Some(_) => json!({"signals": value.split('|').collect::<Vec<_>>()}),
                };
                if task["on_failure"].is_string() {
                    wait["on_failure"] = task["on_failure"].clone();
                }
                other = Some(("wait", wait));
            }
            "timeout" => other.as_mut().unwrap().1["timeout"] = json!(value),
            "default" | "assignee" => {
                other.as_mut().unwrap().1[name] = serde_json::from_str(value).unwrap();
            }
            "sleep" => other = Some(("sleep", json!({"for": value}))),
            "until" => {
                let until: Value = serde_json::from_str(value).unwrap();
                other = Some(("sleep", json!({"until": until})));
            }
            "child" => {
                other = Some(("child", json!({"workflow": value, "input": {"path": "/input"}})));
            }
            "on_kill" | "on_pause" => other.as_mut().unwrap().1[name] = json!(value),
            "emit" => {
                let emits = step.entry("emits").or_insert_with(|| json!([]));
                emits.as_array_mut().unwrap().push(serde_json::from_str(value).unwrap());
            }
            "max_losses" => task[name] = json!(value.parse::<u32>().unwrap()),
            "key" => map.as_mut().unwrap()["key"] = serde_json::from_str(value).unwrap(),
            "empty" | "losers" => map.as_mut().unwrap()[name] = json!(value),
            "at_once" => {
                map.as_mut().unwrap()["max_concurrency"] = json!(value.parse::<u32>().unwrap());
            }
            _ => panic!("a step knows no '{name}'"),
        }
    }
    if let Some((kind, body)) = other {
        step.insert(kind.to_owned(), body);
        return Value::Object(step);
    }
    match map {
        None => step.insert("task".to_owned(), task),
        Some(mut map) => {
            if task["input"] == json!({"path": "/input"}) {
                task["input"] = json!({"path": "/item"});
            }
            map["task"] = task;
            step.insert("map".to_owned(), map)
        }
    };
    Value::Object(step)
}
