//! The picture of a workflow: steps in layers by what they wait for, drawn from left to right, and the way back below.

use std::collections::HashMap;

use backstitch_saga::Graph;
use backstitch_saga::protocol::{RunView, StepView};

use crate::ask::encoded;
use crate::show::{Badge, Tone, cut, number, spoken, step_badge};

/// Sizes, in the units of the picture.
const WIDTH: u32 = 188;
const HEIGHT: u32 = 56;
const ACROSS: u32 = 60;
const DOWN: u32 = 22;
const EDGE: u32 = 16;

/// A step in the picture.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) id: String,
    pub(crate) name: String,
    /// What kind of step it is, and how far it got.
    pub(crate) sub: String,
    pub(crate) badge: Badge,
    pub(crate) x: u32,
    pub(crate) y: u32,
    /// Where more of it is to be seen.
    pub(crate) href: Option<String>,
    /// A mark at its corner, such as its turn in a plan.
    pub(crate) mark: Option<String>,
    /// The point of no return.
    pub(crate) pivot: bool,
}

impl Spot {
    pub(crate) fn text_x(&self) -> u32 {
        self.x + 34
    }

    pub(crate) fn sign_x(&self) -> u32 {
        self.x + 18
    }

    pub(crate) fn name_y(&self) -> u32 {
        self.y + 24
    }

    pub(crate) fn sub_y(&self) -> u32 {
        self.y + 42
    }

    pub(crate) fn sign_y(&self) -> u32 {
        self.y + 33
    }

    pub(crate) fn mark_x(&self) -> u32 {
        self.x + WIDTH
    }
}

/// The picture.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) spots: Vec<Spot>,
    /// Lines of the way forward, as paths.
    pub(crate) edges: Vec<String>,
    /// Lines of the way back.
    pub(crate) back: Vec<String>,
}

impl Picture {
    pub(crate) fn spot_width(&self) -> u32 {
        WIDTH
    }

    pub(crate) fn spot_height(&self) -> u32 {
        HEIGHT
    }

    pub(crate) fn spot_mut(&mut self, id: &str) -> Option<&mut Spot> {
        self.spots.iter_mut().find(|spot| spot.id == id)
    }
}

/// For each step those that it follows at once, without those that it follows through others.
fn direct(graph: &Graph) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<bool>> = vec![vec![false; graph.nodes.len()]; graph.nodes.len()];
    let mut found = vec![Vec::new(); graph.nodes.len()];
    for &at in &graph.order {
        let needs = &graph.nodes[at].needs;
        let through = |need: usize| needs.iter().any(|other| *other != need && all[*other][need]);
        let kept: Vec<usize> = needs.iter().copied().filter(|need| !through(*need)).collect();
        let mut before = vec![false; graph.nodes.len()];
        for need in needs {
            before[*need] = true;
            for (place, is) in all[*need].iter().enumerate() {
                before[place] |= *is;
            }
        }
        all[at] = before;
        found[at] = kept;
    }
    found
}

/// The steps of each layer, from top to bottom.
fn layers(graph: &Graph, needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut layer = vec![0_usize; graph.nodes.len()];
    let mut all: Vec<Vec<usize>> = Vec::new();
    for &at in &graph.order {
        layer[at] = needs[at].iter().map(|need| layer[*need] + 1).max().unwrap_or(0);
        if all.len() <= layer[at] {
            all.resize_with(layer[at] + 1, Vec::new);
        }
        all[layer[at]].push(at);
    }
    // Each step as near as may be to those that it follows.
    let mut row = vec![0_usize; graph.nodes.len()];
    for steps in &mut all {
        let middle = |at: &usize| {
            let before = &needs[*at];
            let sum: usize = before.iter().map(|need| row[*need]).sum();
            if before.is_empty() { 0 } else { sum * 100 / before.len() }
        };
        let mut placed: Vec<(usize, usize)> = steps.iter().map(|at| (middle(at), *at)).collect();
        placed.sort_by_key(|(middle, _)| *middle);
        *steps = placed.into_iter().map(|(_, at)| at).collect();
        for (place, at) in steps.iter().enumerate() {
            row[*at] = place;
        }
    }
    all
}

fn units(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn most(layers: &[Vec<usize>]) -> u32 {
    units(layers.iter().map(Vec::len).max().unwrap_or(0))
}

/// The picture of a workflow without a run.
pub(crate) fn plain(graph: &Graph) -> Picture {
    let needs = direct(graph);
    let layers = layers(graph, &needs);
    let height = most(&layers) * (HEIGHT + DOWN);
    let mut picture = Picture {
        width: units(layers.len()) * (WIDTH + ACROSS) - ACROSS.min(units(layers.len()) * ACROSS)
            + 2 * EDGE,
        height: height + 2 * EDGE,
        ..Picture::default()
    };
    let mut place = vec![(0, 0); graph.nodes.len()];
    for (column, steps) in layers.iter().enumerate() {
        let top = (height - units(steps.len()) * (HEIGHT + DOWN)) / 2 + DOWN / 2;
        for (row, &at) in steps.iter().enumerate() {
            let x = EDGE + units(column) * (WIDTH + ACROSS);
            let y = EDGE + top + units(row) * (HEIGHT + DOWN);
            place[at] = (x, y);
            let node = &graph.nodes[at];
            picture.spots.push(Spot {
                id: node.id.to_string(),
                name: cut(&node.id, 20),
                sub: kind_of(graph, at),
                badge: Badge::new(Tone::Idle, "waiting"),
                x,
                y,
                href: None,
                mark: None,
                pivot: matches!(node.task().class(), Some(backstitch_saga::Class::Pivot)),
            });
        }
    }
    for (at, before) in needs.iter().enumerate() {
        for need in before {
            picture.edges.push(line(place[*need], place[at], HEIGHT / 2));
        }
    }
    picture
}

fn kind_of(graph: &Graph, at: usize) -> String {
    use backstitch_saga::Body;
    match &graph.nodes[at].body {
        Body::Task(task) => cut(&task.name, 24),
        Body::Map(map) => format!("each: {}", cut(&map.task.name, 18)),
        Body::Wait(_) => "waits for a signal".to_owned(),
        Body::Sleep(_) => "waits for time".to_owned(),
        Body::Child(child) => format!("run of {}", cut(&child.workflow, 17)),
        Body::Fail(_) => "fails on purpose".to_owned(),
    }
}

/// A line from the right side of one step to the left side of another.
fn line((x1, y1): (u32, u32), (x2, y2): (u32, u32), at: u32) -> String {
    let (x1, y1, y2) = (x1 + WIDTH, y1 + at, y2 + at);
    let bend = x2.saturating_sub(x1) / 2;
    format!("M{x1} {y1} C{} {y1} {} {y2} {x2} {y2}", x1 + bend, x2.saturating_sub(bend))
}

/// A line back: from the left side of a step to the right side of what is undone after it.
fn line_back(from: (u32, u32), to: (u32, u32)) -> String {
    let (x1, y1) = (from.0, from.1 + HEIGHT - 10);
    let (x2, y2) = (to.0 + WIDTH, to.1 + HEIGHT - 10);
    let bend = x1.saturating_sub(x2) / 2;
    format!("M{x1} {y1} C{} {} {} {} {x2} {y2}", x1 - bend, y1 + 14, x2 + bend, y2 + 14)
}

/// The picture of a run.
pub(crate) fn of_run(graph: &Graph, view: &RunView) -> Picture {
    let mut picture = plain(graph);
    let steps: HashMap<&str, &StepView> = view
        .steps
        .iter()
        .filter(|step| step.step.item.is_none())
        .map(|step| (&*step.step.step, step))
        .collect();
    for spot in &mut picture.spots {
        spot.href = Some(format!("/console/runs/{}/steps/{}", view.id, encoded(&spot.id)));
        let Some(step) = steps.get(spot.id.as_str()) else { continue };
        spot.badge = step_badge(step);
        spot.sub = sub_of(step);
    }
    draw_back(graph, &mut picture, |id| {
        steps.get(id).is_some_and(|step| step.compensation.is_some())
    });
    picture
}

/// Draws the way back between steps that are undone.
pub(crate) fn draw_back(graph: &Graph, picture: &mut Picture, undone: impl Fn(&str) -> bool) {
    let place: HashMap<&str, (u32, u32)> =
        picture.spots.iter().map(|spot| (spot.id.as_str(), (spot.x, spot.y))).collect();
    let mut back = Vec::new();
    for (at, before) in direct(graph).iter().enumerate() {
        let id = &*graph.nodes[at].id;
        for need in before {
            let other = &*graph.nodes[*need].id;
            if let (true, true, Some(from), Some(to)) =
                (undone(id), undone(other), place.get(id), place.get(other))
            {
                back.push(line_back(*from, *to));
            }
        }
    }
    picture.back = back;
}

/// How far a step got, in a few words.
fn sub_of(step: &StepView) -> String {
    let word = spoken(step.compensation.as_deref().unwrap_or(&step.state));
    if !step.items.is_empty() {
        let total: u64 = step.items.values().map(|count| u64::from(*count)).sum();
        let done = step.items.get("succeeded").copied().unwrap_or(0);
        return format!("{} of {} · {word}", number(done.into()), number(total));
    }
    match step.attempts {
        0 | 1 => word,
        attempts => format!("{word} · {attempts} attempts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(steps: &str) -> Graph {
        Graph::parse(&format!(r#"{{"name":"w","version":1,"steps":[{steps}]}}"#)).unwrap()
    }

    fn step(id: &str, after: &str) -> String {
        let after: Vec<String> =
            after.split_whitespace().map(|name| format!("\"{name}\"")).collect();
        format!(
            r#"{{"id":"{id}","after":[{}],"task":{{"name":"{id}","class":"retriable","input":{{"path":"/input"}}}}}}"#,
            after.join(",")
        )
    }

    fn all(steps: &[(&str, &str)]) -> Graph {
        let steps: Vec<String> = steps.iter().map(|(id, after)| step(id, after)).collect();
        graph(&steps.join(","))
    }

    #[test]
    fn a_step_stands_right_of_all_that_it_follows() {
        let picture = plain(&all(&[("a", ""), ("b", "a"), ("c", "a"), ("d", "b c"), ("e", "")]));
        let x = |id: &str| picture.spots.iter().find(|spot| spot.id == id).unwrap().x;
        assert!(x("a") < x("b") && x("b") == x("c") && x("c") < x("d") && x("e") == x("a"));
        assert_eq!(picture.edges.len(), 4);
    }

    #[test]
    fn what_follows_through_others_has_no_line_of_its_own() {
        let picture = plain(&all(&[("a", ""), ("b", "a"), ("c", "a b")]));
        assert_eq!(picture.edges.len(), 2);
    }

    #[test]
    fn no_two_steps_of_200_stand_on_each_other() {
        let names: Vec<String> = (0..200).map(|at| format!("s{at}")).collect();
        let steps: Vec<(&str, &str)> = (0..200)
            .map(|at| (names[at].as_str(), if at < 20 { "" } else { names[at - 20].as_str() }))
            .collect();
        let picture = plain(&all(&steps));
        let mut places: Vec<_> = picture.spots.iter().map(|spot| (spot.x, spot.y)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 200);
        let inside =
            |spot: &Spot| spot.x + WIDTH < picture.width && spot.y + HEIGHT < picture.height;
        assert!(picture.spots.iter().all(inside));
    }
}
