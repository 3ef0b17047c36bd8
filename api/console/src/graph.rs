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
    /// Kind of the step, and its progress.
    pub(crate) sub: String,
    pub(crate) badge: Badge,
    pub(crate) x: u32,
    pub(crate) y: u32,
    /// Address of the page with more of it.
    pub(crate) href: Option<String>,
    /// A mark at its corner, such as its turn in a plan.
    pub(crate) mark: Option<String>,
    /// The point of no return.
    pub(crate) pivot: bool,
    /// It represents a row of steps.
    pub(crate) folded: bool,
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
    ways: Vec<Way>,
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

/// Returns for each step those that it follows directly, without those that it follows through
/// others.
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

/// Largest number of lines that are led behind steps; with more, lines go straight.
const MOST_PASSES: usize = 4_000;
/// The room of a line that passes a layer.
const PASS: i32 = 18;

/// An entry of a layer: a step, or the lines of a step that pass it on their way to later ones.
#[derive(Clone, Copy)]
enum Entry {
    Step(usize),
    Pass(usize),
}

/// Positions: x by the layer, y from the middle of the picture.
struct Places {
    layer: Vec<usize>,
    layers: usize,
    step: Vec<i32>,
    pass: HashMap<(usize, usize), i32>,
    height: i32,
}

impl Places {
    /// Puts each step of `order` right of those that it follows, and beside them as near as may be.
    fn of(order: &[usize], needs: &[Vec<usize>]) -> Places {
        let mut layer = vec![0_usize; needs.len()];
        for &at in order {
            layer[at] = needs[at].iter().map(|need| layer[*need] + 1).max().unwrap_or(0);
        }
        let layers = layer.iter().max().map_or(0, |last| last + 1);
        let mut columns: Vec<Vec<Entry>> = vec![Vec::new(); layers];
        for &at in order {
            columns[layer[at]].push(Entry::Step(at));
        }
        let mut reach: Vec<usize> = layer.iter().map(|layer| layer + 1).collect();
        for (at, before) in needs.iter().enumerate() {
            for need in before {
                reach[*need] = reach[*need].max(layer[at]);
            }
        }
        let passes: usize = reach.iter().zip(&layer).map(|(to, from)| to - from - 1).sum();
        if passes <= MOST_PASSES {
            for (at, to) in reach.iter().enumerate() {
                for column in &mut columns[layer[at] + 1..(*to).max(layer[at] + 1)] {
                    column.push(Entry::Pass(at));
                }
            }
        }
        let (step, pass) = (vec![0; needs.len()], HashMap::new());
        let mut places = Places { layer, layers, step, pass, height: 0 };
        for (column, entries) in columns.iter().enumerate() {
            places.put(column, entries, needs);
        }
        places
    }

    /// Returns the position at which the line of `need` leaves the layer before `column`.
    fn before(&self, need: usize, column: usize) -> i32 {
        let passed = self.pass.get(&(need, column.wrapping_sub(1)));
        passed.copied().unwrap_or(self.step[need])
    }

    fn put(&mut self, column: usize, entries: &[Entry], needs: &[Vec<usize>]) {
        let middle = |entry: &Entry| match entry {
            Entry::Pass(need) => self.before(*need, column),
            Entry::Step(at) => {
                let before = &needs[*at];
                let sum: i32 = before.iter().map(|need| self.before(*need, column)).sum();
                sum / i32::try_from(before.len().max(1)).unwrap_or(1)
            }
        };
        let mut placed: Vec<(i32, Entry)> =
            entries.iter().map(|entry| (middle(entry), *entry)).collect();
        placed.sort_by_key(|(middle, _)| *middle);
        let room = |entry: &Entry| match entry {
            Entry::Step(_) => signed(HEIGHT + DOWN),
            Entry::Pass(_) => PASS,
        };
        let height: i32 = placed.iter().map(|(_, entry)| room(entry)).sum();
        self.height = self.height.max(height);
        let mut top = -height / 2;
        for (_, entry) in &placed {
            let middle = top + room(entry) / 2;
            match entry {
                Entry::Step(at) => self.step[*at] = middle,
                Entry::Pass(need) => {
                    self.pass.insert((*need, column), middle);
                }
            }
            top += room(entry);
        }
    }

    fn x(&self, column: usize) -> u32 {
        EDGE + units(column) * (WIDTH + ACROSS)
    }

    fn y(&self, from_middle: i32) -> u32 {
        u32::try_from(self.height / 2 + from_middle + signed(EDGE)).unwrap_or(0)
    }

    /// Returns the left ends of the positions at which the line from `need` to `at` passes the
    /// layers between them.
    fn way(&self, need: usize, at: usize) -> Vec<(u32, u32)> {
        let between = self.layer[need] + 1..self.layer[at];
        let pass = |column| Some((self.x(column), self.y(*self.pass.get(&(need, column))?)));
        between.filter_map(pass).collect()
    }
}

fn units(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn signed(length: u32) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Returns, for each step, the first of the row of steps that is drawn as one: those that are done and follow nothing
/// but each other.
fn rows(graph: &Graph, needs: &[Vec<usize>], is_done: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut followers = vec![0_usize; needs.len()];
    for need in needs.iter().flatten() {
        followers[*need] += 1;
    }
    let mut first: Vec<usize> = (0..needs.len()).collect();
    for &at in &graph.order {
        if let [before] = needs[at][..]
            && followers[before] == 1
            && is_done(at)
            && is_done(before)
        {
            first[at] = first[before];
        }
    }
    first
}

/// Returns the picture of a workflow without a run.
pub(crate) fn plain(graph: &Graph) -> Picture {
    drawn(graph, |_| false)
}

/// Returns the picture of a workflow in which rows of steps that are done are drawn as one each.
fn drawn(graph: &Graph, is_done: impl Fn(usize) -> bool) -> Picture {
    let mut needs = direct(graph);
    let first = rows(graph, &needs, is_done);
    let order: Vec<usize> = graph.order.iter().copied().filter(|at| first[*at] == *at).collect();
    for (at, before) in needs.iter_mut().enumerate() {
        match first[at] == at {
            true => before.iter_mut().for_each(|need| *need = first[*need]),
            false => before.clear(),
        }
        before.dedup();
    }
    let places = Places::of(&order, &needs);
    let columns = units(places.layers);
    let mut picture = Picture {
        width: columns * (WIDTH + ACROSS) - ACROSS.min(columns * ACROSS) + 2 * EDGE,
        height: u32::try_from(places.height).unwrap_or(0) + 2 * EDGE,
        ..Picture::default()
    };
    let mut in_order = order;
    in_order.sort_by_key(|&at| (places.layer[at], places.step[at]));
    for at in in_order {
        let node = &graph.nodes[at];
        picture.spots.push(Spot {
            id: node.id.to_string(),
            name: cut(&node.id, 20),
            sub: kind_of(graph, at),
            badge: Badge::new(Tone::Idle, "waiting"),
            x: places.x(places.layer[at]),
            y: places.y(places.step[at]) - HEIGHT / 2,
            href: None,
            mark: None,
            folded: false,
            pivot: matches!(node.task().class(), Some(backstitch_saga::Class::Pivot)),
        });
        let row: Vec<&str> = graph
            .order
            .iter()
            .filter(|one| first[**one] == at)
            .map(|one| &*graph.nodes[*one].id)
            .collect();
        if let (Some(spot), [from, .., to]) = (picture.spots.last_mut(), &row[..]) {
            spot.name = format!("{} … {}", cut(from, 8), cut(to, 8));
            spot.sub = format!("{} steps", row.len());
            spot.badge = Badge::new(Tone::Good, "done");
            spot.id = row.join(" ");
            spot.folded = true;
        }
    }
    for (at, before) in needs.iter().enumerate() {
        for &need in before {
            let corner =
                |at: usize| (places.x(places.layer[at]), places.y(places.step[at]) - HEIGHT / 2);
            let way = Way {
                from: graph.nodes[need].id.to_string(),
                to: graph.nodes[at].id.to_string(),
                ends: (corner(need), corner(at)),
                passes: places.way(need, at),
            };
            picture.edges.push(way.forward());
            picture.ways.push(way);
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

/// The way of a line between two steps: their corners, and the layers that it passes between them.
#[derive(Debug)]
struct Way {
    from: String,
    to: String,
    ends: ((u32, u32), (u32, u32)),
    passes: Vec<(u32, u32)>,
}

impl Way {
    /// Draws from the right side of the one to the left side of the other.
    fn forward(&self) -> String {
        let ((x1, y1), (x2, y2)) = self.ends;
        let mut line = format!("M{} {}", x1 + WIDTH, y1 + HEIGHT / 2);
        let mut at = (x1 + WIDTH, y1 + HEIGHT / 2);
        for &(x, y) in &self.passes {
            line += &bent(at, (x, y), 0);
            line += &format!(" H{}", x + WIDTH);
            at = (x + WIDTH, y);
        }
        line + &bent(at, (x2, y2 + HEIGHT / 2), 0)
    }

    /// Draws back, below the way forward.
    fn back(&self) -> String {
        let ((x1, y1), (x2, y2)) = self.ends;
        let mut at = (x2, y2 + HEIGHT - 10);
        let mut line = format!("M{} {}", at.0, at.1);
        for &(x, y) in self.passes.iter().rev() {
            line += &bent(at, (x + WIDTH, y + 6), 0);
            line += &format!(" H{x}");
            at = (x, y + 6);
        }
        let sag = if self.passes.is_empty() { 14 } else { 0 };
        line + &bent(at, (x1 + WIDTH, y1 + HEIGHT - 10), sag)
    }
}

/// Returns a curve from one point to another that leaves and arrives level, or sags on the way.
fn bent((x1, y1): (u32, u32), (x2, y2): (u32, u32), sag: u32) -> String {
    let middle = u32::midpoint(x1, x2);
    format!(" C{middle} {} {middle} {} {x2} {y2}", y1 + sag, y2 + sag)
}

/// Returns the picture of a run. With `fold`, rows of steps that are done are drawn as one each.
pub(crate) fn of_run(graph: &Graph, view: &RunView, fold: bool) -> Picture {
    let steps: HashMap<&str, &StepView> = view
        .steps
        .iter()
        .filter(|step| step.step.item.is_none())
        .map(|step| (&*step.step.step, step))
        .collect();
    let is_done = |at: usize| {
        let step = steps.get(&*graph.nodes[at].id);
        fold && step
            .is_some_and(|step| step.compensation.is_none() && step_badge(step).tone == Tone::Good)
    };
    let mut picture = drawn(graph, is_done);
    for spot in &mut picture.spots {
        if spot.folded {
            spot.href = Some(format!("/console/runs/{}?fold=no", view.id));
            continue;
        }
        spot.href = Some(format!("/console/runs/{}/steps/{}", view.id, encoded(&spot.id)));
        let Some(step) = steps.get(spot.id.as_str()) else { continue };
        spot.badge = step_badge(step);
        spot.sub = sub_of(step);
    }
    draw_back(&mut picture, |id| steps.get(id).is_some_and(|step| step.compensation.is_some()));
    picture
}

/// Draws the way back between steps that are undone.
pub(crate) fn draw_back(picture: &mut Picture, undone: impl Fn(&str) -> bool) {
    let both = |way: &&Way| undone(&way.from) && undone(&way.to);
    picture.back = picture.ways.iter().filter(both).map(Way::back).collect();
}

/// Describes the progress of a step in a few words.
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
mod tests;
