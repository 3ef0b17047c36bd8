//! A run as text: what it says of itself, and its graph, layer by layer. Pure: a view and a graph in, text out.

use std::collections::HashMap;
use std::fmt::Write as _;

use backstitch_saga::Graph;
use backstitch_saga::protocol::{CompensationState, RunTree, RunView, State, StepView};

use super::show;
use crate::print::counted;

/// The run on one line, for those who watch without a terminal.
pub(crate) fn line(view: &RunView) -> String {
    let counts: Vec<String> =
        view.progress.steps.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let summary = view.summary.replace('\n', " ");
    printable(&format!(
        "{:>4}  {:<20} {summary}; steps: {}",
        view.seq,
        word(view),
        counts.join(", ")
    ))
}

/// The run with its graph, its documents cut to a few lines of `width` where that is given. Lines end with a line break.
pub(crate) fn run(view: &RunView, graph: Option<&Graph>, width: Option<usize>) -> String {
    let mut text = String::new();
    head(&mut text, view, width);
    let steps: HashMap<String, &StepView> =
        view.steps.iter().map(|step| (step.step.to_string(), step)).collect();
    let width = steps.keys().map(String::len).max().unwrap_or(0);
    text.push('\n');
    for (depth, layer) in layers(view, graph).iter().enumerate() {
        if depth > 0 {
            text.push_str("  │\n");
        }
        for (at, (name, needs)) in layer.iter().enumerate() {
            let Some(step) = steps.get(name) else { continue };
            let branch = match (at, at + 1 == layer.len()) {
                (_, true) if layer.len() == 1 => ' ',
                (0, _) => '┌',
                (_, true) => '└',
                _ => '├',
            };
            let _ = write!(text, "  {branch}{} {name:width$}  {}", mark(step), tells(step));
            if needs.len() > 1 || (depth > 0 && !follows(view, graph, depth, needs)) {
                let _ = write!(text, "  ← {}", needs.join(", "));
            }
            text.push('\n');
        }
    }
    text += &show::conditions(view);
    text += &show::approvals(view);
    printable(&text)
}

/// The text without what a terminal would take for a command.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// A tree of runs, each below the run that it is a step of.
pub(crate) fn tree(tree: &RunTree) -> String {
    let mut text = String::new();
    for run in &tree.runs {
        let step = run.step.as_ref().map_or(String::new(), |step| format!("{step}: "));
        let state = run.outcome.map_or(run.state.as_str(), |outcome| outcome.as_str());
        let indent = "   ".repeat(run.depth as usize);
        let _ = writeln!(
            text,
            "{indent}{step}{} version {}  {}  {state}",
            run.workflow, run.version, run.run
        );
    }
    if tree.more {
        text.push_str("… and more\n");
    }
    text
}

fn head(text: &mut String, view: &RunView, width: Option<usize>) {
    let _ = writeln!(text, "{} version {}  {}", view.workflow, view.version, view.id);
    let _ = writeln!(text, "{}: {}", word(view), view.summary);
    let mut facts = vec![format!("started {}", time(&view.started_at))];
    match &view.ended_at {
        Some(at) => facts.push(format!("ended {}", time(at))),
        None => facts.push(format!("due by {}", time(&view.deadline))),
    }
    if let Some(key) = &view.key {
        facts.push(format!("key {key}"));
    }
    facts.extend(view.labels.iter().map(|(name, value)| format!("{name}:{value}")));
    let _ = writeln!(text, "{}", facts.join("  "));
    *text += &show::documents(view, width);
    if !view.progress.effects.is_empty() {
        let effects = view.progress.effects.iter().map(|(word, count)| format!("{count} {word}"));
        let _ = writeln!(text, "effects: {}", effects.collect::<Vec<_>>().join(", "));
    }
    *text += &show::standing(view);
}

/// The state, and the outcome once there is one.
fn word(view: &RunView) -> &'static str {
    match (view.state, view.outcome) {
        (State::Ended, Some(outcome)) => outcome.as_str(),
        (state, _) => state.as_str(),
    }
}

fn time(at: &backstitch_saga::Timestamp) -> String {
    let text = at.0.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.replace('T', " "))
}

/// Steps by how many others must come before, each with what it needs. Without a graph, all in one.
fn layers(view: &RunView, graph: Option<&Graph>) -> Vec<Vec<(String, Vec<String>)>> {
    let Some(graph) = graph else {
        return vec![view.steps.iter().map(|step| (step.step.to_string(), Vec::new())).collect()];
    };
    let mut depths = vec![0; graph.nodes.len()];
    let mut layers: Vec<Vec<(String, Vec<String>)>> = Vec::new();
    for &at in &graph.order {
        let node = &graph.nodes[at];
        depths[at] = node.needs.iter().map(|&need| depths[need] + 1).max().unwrap_or(0);
        if layers.len() <= depths[at] {
            layers.resize_with(depths[at] + 1, Vec::new);
        }
        let needs = node.needs.iter().map(|&need| graph.nodes[need].id.to_string()).collect();
        layers[depths[at]].push((node.id.to_string(), needs));
    }
    layers
}

/// Returns whether a step needs the whole layer above it, so that the line between them shows it.
fn follows(view: &RunView, graph: Option<&Graph>, depth: usize, needs: &[String]) -> bool {
    let layers = layers(view, graph);
    layers[depth - 1].len() == needs.len()
}

/// The mark of a step: what it did, or what was done about it.
fn mark(step: &StepView) -> char {
    match step.compensation.as_ref().map(CompensationState::as_str) {
        Some("compensated" | "compensated_by_hand") => return '↩',
        Some("compensation_blocked") => return '!',
        Some(_) => return '↶',
        None => {}
    }
    match step.state.as_str() {
        "succeeded" => '✓',
        "failed" => '✗',
        "unknown" | "verifying" => '?',
        "parked" => '!',
        "leased" | "open" => '▶',
        "offered" => '○',
        "backoff" => '↻',
        "skipped" => '–',
        "cancelled" => '×',
        _ => '·',
    }
}

/// Describes a step on one line.
fn tells(step: &StepView) -> String {
    let mut parts = vec![format!("{:9}", step.state)];
    if let Some(compensation) = &step.compensation {
        parts.push(compensation.to_string());
    }
    if !step.items.is_empty() {
        let items = step.items.iter().map(|(word, count)| format!("{count} {word}"));
        parts.push(format!("items: {}", items.collect::<Vec<_>>().join(", ")));
    }
    let at_once = step.state == "succeeded" && step.attempts == 1;
    let tried = step.attempts > 0 && step.kind == "task" && !at_once;
    match step.max_attempts {
        Some(max) if tried => parts.push(format!("{} of {max} attempts", step.attempts)),
        None if tried => parts.push(counted(step.attempts, "attempt")),
        _ => {}
    }
    if let Some(worker) = &step.worker {
        parts.push(format!("at {}", worker.split('/').next().unwrap_or(worker)));
    }
    if let (Some(at), "backoff" | "leased") = (&step.next_at, step.state.as_str()) {
        let what = if step.state == "backoff" { "again" } else { "until" };
        parts.push(format!("{what} {}", time(at)));
    }
    if let Some(error) = &step.error {
        parts.push(format!("{}: {}", error.code, error.message.replace('\n', " ")));
    }
    parts.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backstitch_saga::protocol::{Condition, Failure, FailureKind, TaskOutcome};
    use backstitch_saga::{Command, Payload, Run, RunId, Start, TaskKey, Time, Transition, decide};

    use super::*;

    const ORDER: &str = r#"{"name":"place-order","version":1,"steps":[
        {"id":"customer","task":{"name":"find","class":"read_only","input":{"path":"/input"}}},
        {"id":"stock","after":["customer"],"map":{"items":{"path":"/input/lines"},"join":"all","empty":"fail",
            "task":{"name":"reserve","input":{"path":"/item"},"compensate":{"name":"release"}}}},
        {"id":"payment","after":["customer"],"task":{"name":"charge","input":{"path":"/input"},
            "compensate":{"name":"refund"},"retry":{"max_attempts":8,"first_delay":"10s","jitter":"none"}}},
        {"id":"shipment","after":["stock","payment"],"task":{"name":"ship","class":"pivot","input":{"path":"/input"}}},
        {"id":"mail","after":["payment"],"task":{"name":"mail","class":"retriable","input":{"path":"/input"}}}]}"#;

    /// A run that tests move by hand, one second a command.
    struct Story {
        run: Run,
        at: Time,
    }

    impl Story {
        fn new() -> Story {
            let graph = Arc::new(Graph::parse(ORDER).unwrap());
            let id: RunId = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11".parse().unwrap();
            let mut story = Story { run: Run::new(id, graph), at: Time(1_769_853_731_000) };
            story.ask(Command::Start(Start {
                namespace: "test".into(),
                definition: "0".into(),
                key: Some("order-10248".into()),
                correlation_id: None,
                causation_id: None,
                labels: [("customer".to_owned(), "c-7".to_owned())].into(),
                holds: Vec::new(),
                parent: None,
                descent: None,
                input: Payload::trusted(r#"{"lines":["chai","tofu","ikura"]}"#.to_owned()).unwrap(),
                start_at: None,
                requires: Vec::new(),
                end_by: None,
            }));
            story
        }

        fn ask(&mut self, command: Command) {
            self.at = self.at.after(backstitch_saga::Span::secs(1));
            decide(&mut self.run, command, self.at, &mut Transition::default()).unwrap();
            self.run.mark_appended();
        }

        /// Hands out what is on offer for `step`, and reports it as `outcome` where there is one.
        fn work(&mut self, step: &str, outcome: Option<TaskOutcome>) {
            let mut offered = self.run.offered().into_iter();
            let task: TaskKey =
                offered.find(|task| task.step.to_string() == step).expect("the task is on offer");
            let worker = "shop-1/5f0c7ad4-9f0b-4c0e-9a59-3a1f6f0f7d10".into();
            self.ask(Command::HandOut { task: task.clone(), worker });
            if let Some(outcome) = outcome {
                self.ask(Command::Report { task, outcome });
            }
        }

        fn good(&mut self, step: &str) {
            let output = Payload::null();
            self.work(step, Some(TaskOutcome::Succeeded { output, external_id: None }));
        }

        fn bad(&mut self, step: &str, kind: FailureKind) {
            self.work(
                step,
                Some(TaskOutcome::Failed(Failure {
                    kind,
                    code: "refused".to_owned(),
                    message: "the bank said no".to_owned(),
                    details: None,
                    retry_after: None,
                })),
            );
        }

        /// Holds the drawing to the text in `golden/`; `BACKSTITCH_BLESS=1` writes it instead.
        fn looks_like(&self, name: &str) {
            let drawn = super::run(&self.run.view(self.at), Some(self.run.graph()), None);
            let path = format!("{}/src/cli/remote/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("BACKSTITCH_BLESS").is_some() {
                std::fs::write(&path, &drawn).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(drawn, golden, "{path}; BACKSTITCH_BLESS=1 writes it anew");
        }
    }

    #[test]
    fn a_run_on_its_way() {
        let mut story = Story::new();
        story.good("customer");
        story.good("stock/0");
        story.work("stock/1", None);
        story.bad("payment", FailureKind::Retryable);
        story.looks_like("on-its-way");
    }

    #[test]
    fn a_run_being_undone() {
        let mut story = Story::new();
        story.good("customer");
        story.good("stock/0");
        story.good("stock/2");
        story.bad("payment", FailureKind::Permanent);
        story.looks_like("being-undone");
        assert!(
            line(&story.run.view(story.at)).starts_with("   9  compensating         being undone")
        );
    }

    #[test]
    fn a_run_that_succeeded() {
        let mut story = Story::new();
        for step in ["customer", "stock/0", "stock/1", "stock/2", "payment", "shipment", "mail"] {
            story.good(step);
        }
        story.looks_like("succeeded");
    }

    #[test]
    fn many_incidents_are_one_line_that_says_how_to_list_them() {
        let story = Story::new();
        let mut view = story.run.view(story.at);
        let incident = |number: usize| Condition {
            kind: "IncidentOpen".to_owned(),
            step: None,
            message: format!("{}: item {number} failed", ["task_exhausted", "poison"][number % 2]),
            since: view.started_at,
        };
        let incidents: Vec<Condition> = (0..40).map(incident).collect();
        view.conditions = incidents[..3].to_vec();
        assert_eq!(super::run(&view, None, None).matches("! IncidentOpen").count(), 3);
        view.conditions = incidents;
        let drawn = super::run(&view, None, None);
        let expected = format!(
            "\n! IncidentOpen: 40 incidents of 2 kinds: backstitch incident list --run {}\n",
            view.id
        );
        assert!(drawn.ends_with(&expected), "{drawn}");
    }

    #[test]
    fn a_long_document_is_cut_on_a_terminal_and_whole_elsewhere() {
        let story = Story::new();
        let mut view = story.run.view(story.at);
        let input = format!(r#"{{"note":"{}"}}"#, "n".repeat(3_000));
        view.input = Payload::trusted(input.clone()).unwrap();
        assert!(super::run(&view, None, None).contains(&input));
        let drawn = super::run(&view, None, Some(80));
        let line = drawn.lines().find(|line| line.starts_with("input: ")).unwrap();
        assert_eq!(line.chars().count(), 240, "{line}");
        assert!(line.ends_with("… (3011 bytes; --wide prints all)"), "{line}");
    }

    #[test]
    fn without_its_definition_a_run_is_a_list_of_steps() {
        let story = Story::new();
        let drawn = super::run(&story.run.view(story.at), None, None);
        let steps =
            drawn.lines().filter(|line| line.contains("waiting") || line.contains("offered"));
        assert!(steps.count() >= 5, "{drawn}");
    }
}
