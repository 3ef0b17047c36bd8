//! Comparison of two versions of a workflow: steps that are new, removed or changed, and their
//! changes.

use askama::Template;
use axum::extract::Path;
use backstitch_saga::protocol::{Page, WorkflowView};
use backstitch_saga::{Definition, Graph};
use serde_json::Value;

use super::changes::{Change, changes};
use crate::ask::{Ask, Problem, encoded};
use crate::graph::{Picture, plain};
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone};

/// Largest number of changes that are shown.
const MOST: usize = 500;

/// Differences of a step, or of the workflow itself.
struct Group {
    badge: Badge,
    name: String,
    changes: Vec<Change>,
}

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    frame: Frame,
    name: String,
    old: u32,
    new: u32,
    versions: Vec<u32>,
    groups: Vec<Group>,
    same: usize,
    more: usize,
    picture: Option<Picture>,
}

fn document(definition: &Definition) -> (Value, Vec<(String, Value)>) {
    let mut whole = serde_json::to_value(definition).unwrap_or_default();
    let steps = whole.as_object_mut().and_then(|members| members.remove("steps"));
    if let Some(members) = whole.as_object_mut() {
        members.remove("version");
    }
    let steps = match steps {
        Some(Value::Array(steps)) => steps,
        _ => Vec::new(),
    };
    let id = |step: &Value| step["id"].as_str().unwrap_or_default().to_owned();
    (whole, steps.into_iter().map(|step| (id(&step), step)).collect())
}

/// Returns the differences of two definitions, and the number of steps that differ.
fn compare(old: &Definition, new: &Definition) -> (Vec<Group>, usize) {
    let ((was, old_steps), (is, new_steps)) = (document(old), document(new));
    let mut groups = Vec::new();
    let mut whole = Vec::new();
    changes("", Some(&was), Some(&is), &mut whole);
    if !whole.is_empty() {
        let badge = Badge::new(Tone::Doubt, "changed");
        groups.push(Group { badge, name: "The workflow".to_owned(), changes: whole });
    }
    let mut same = 0;
    let of = |steps: &[(String, Value)], id: &str| {
        steps.iter().find(|(known, _)| known == id).map(|(_, step)| step.clone())
    };
    for (id, step) in &new_steps {
        let before = of(&old_steps, id);
        let mut found = Vec::new();
        if let Some(before) = &before {
            changes("", Some(before), Some(step), &mut found);
        }
        let badge = match (before, found.is_empty()) {
            (None, _) => Badge::new(Tone::Good, "new"),
            (Some(_), false) => Badge::new(Tone::Doubt, "changed"),
            (Some(_), true) => {
                same += 1;
                continue;
            }
        };
        groups.push(Group { badge, name: id.clone(), changes: found });
    }
    for (id, _) in old_steps.iter().filter(|(id, _)| of(&new_steps, id).is_none()) {
        let badge = Badge::new(Tone::Bad, "gone");
        groups.push(Group { badge, name: id.clone(), changes: Vec::new() });
    }
    (groups, same)
}

pub(crate) async fn show(ask: Ask, Path((name, version)): Path<(String, u32)>) -> Shown {
    match page(&ask, &name, version).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn page(ask: &Ask, name: &str, new: u32) -> Result<ComparePage, Problem> {
    let who = ask.who().await?;
    let path = format!("/v1/workflows/{}", encoded(name));
    let versions: Page<WorkflowView> = ask.get(&format!("{path}?limit=200")).await?;
    let versions: Vec<u32> = versions.items.iter().map(|one| one.version).collect();
    let before = versions.iter().copied().filter(|version| *version < new).max();
    let old = ask.param("with").and_then(|with| with.parse().ok()).or(before).unwrap_or(new);
    let definition = async |version: u32| {
        let view: WorkflowView = ask.get(&format!("{path}/versions/{version}")).await?;
        view.definition.ok_or_else(Problem::default)
    };
    let (was, is) = (definition(old).await?, definition(new).await?);
    let (mut groups, same) = compare(&was, &is);
    let mut picture = Graph::check(is).ok().map(|graph| plain(&graph));
    for spot in picture.iter_mut().flat_map(|picture| &mut picture.spots) {
        let group = groups.iter().find(|group| group.name == spot.id);
        spot.badge =
            group.map_or_else(|| Badge::new(Tone::Idle, "same"), |group| group.badge.clone());
        spot.sub = spot.badge.word.clone();
    }
    let mut left = MOST;
    let mut more = 0;
    for group in &mut groups {
        more += group.changes.len().saturating_sub(left);
        group.changes.truncate(left);
        left -= group.changes.len();
    }
    Ok(ComparePage {
        frame: Frame::new(ask, who, "workflows", format!("{name} v{old} and v{new}")),
        name: name.to_owned(),
        old,
        new,
        versions,
        groups,
        same,
        more,
        picture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(steps: &Value) -> Definition {
        serde_json::from_value(json!({ "name": "w", "version": 1, "steps": steps })).unwrap()
    }

    fn step(id: &str, queue: &str) -> Value {
        json!({ "id": id, "task": { "name": "do", "queue": queue, "class": "read_only", "input": { "path": "/input" } } })
    }

    #[test]
    fn steps_are_told_by_their_ids_wherever_they_stand() {
        let old = definition(&json!([step("a", "q"), step("b", "q"), step("c", "q")]));
        let new = definition(&json!([step("d", "q"), step("c", "q"), step("a", "other")]));
        let (groups, same) = compare(&old, &new);
        let told: Vec<(&str, &str)> =
            groups.iter().map(|group| (group.name.as_str(), group.badge.word.as_str())).collect();
        assert_eq!((told, same), (vec![("d", "new"), ("a", "changed"), ("b", "gone")], 1));
        let change = Change {
            at: "/task/queue".to_owned(),
            was: Some("\"q\"".to_owned()),
            is: Some("\"other\"".to_owned()),
        };
        assert_eq!(groups[1].changes, [change]);
        assert!(compare(&old, &old).0.is_empty());
    }
}
