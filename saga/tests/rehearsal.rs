//! Results of rehearsals, as cases in `testdata/rehearsals.txt`: a workflow, and the findings about it.
//! `UPDATE_EXPECT=1 cargo test -p backstitch-saga --test rehearsal` writes the present findings.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "teller/workflow.rs"]
mod workflow;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use backstitch_saga::rehearse::{Admission, Bounds, Finding, Rehearsal, Severity, admit, rehearse};
use backstitch_saga::{Graph, Violation};

/// Describes a rehearsal in a case.
fn told(found: &Rehearsal) -> String {
    let mut told = String::new();
    let levels: Vec<String> = found
        .levels
        .iter()
        .map(|level| format!("{}{}", level.traces, if level.complete { "" } else { "+" }))
        .collect();
    let Rehearsal { closed, parked, open, scenes, .. } = found;
    writeln!(told, "traces {} over {scenes} scenes", levels.join(" ")).unwrap();
    writeln!(told, "{closed} closed, {parked} wait for a person, {open} do not close").unwrap();
    let outcomes: Vec<String> =
        found.outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
    writeln!(told, "{}", outcomes.join(", ")).unwrap();
    for missing in &found.not_reached {
        writeln!(told, "not reached: {missing}").unwrap();
    }
    for defect in &found.defects {
        writeln!(told, "{}: {}", defect.rule, defect.message).unwrap();
        for line in &defect.trace {
            writeln!(told, "    {line}").unwrap();
        }
    }
    told
}

#[test]
fn cases_are_found_out_as_they_are_told() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/rehearsals.txt");
    let cases = fs::read_to_string(&file).unwrap();
    let mut now = Vec::new();
    for case in cases.trim_end().split("\n\n") {
        let (workflow, _) = case.split_once("\n----").unwrap_or((case, ""));
        let lines = workflow.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        let found = rehearse(&Arc::new(workflow::graph(&lines)), Bounds { faults: 2, traces: 600 });
        now.push(format!("{workflow}\n----\n{}", told(&found)));
    }
    let now = now.join("\n");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &now).unwrap();
    }
    let wrong = cases.lines().zip(now.lines()).find(|(told, found)| told != found);
    assert!(cases == now, "{}: {wrong:#?}", file.display());
}

#[test]
fn registering_a_case_finds_what_rehearsing_it_finds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/rehearsals.txt");
    let cases = fs::read_to_string(file).unwrap();
    let mut found_at_all = 0;
    for case in cases.trim_end().split("\n\n") {
        let (workflow, _) = case.split_once("\n----").unwrap();
        let lines = workflow.lines().filter(|line| !line.starts_with('#'));
        let graph = Arc::new(workflow::graph(&lines.map(str::to_owned).collect::<Vec<_>>()));
        let Admission { refused, rehearsed } = admit(&graph);
        let found = rehearse(&graph, Bounds { faults: 2, traces: 600 });
        assert_eq!(refused.is_empty(), found.is_accepted(), "{case}");
        let own = |finding: &&Finding| {
            graph.warnings().iter().all(|own| own.pointer != finding.violation.pointer)
        };
        let codes = |severity: Severity| -> BTreeSet<(String, String)> {
            let found = found.findings.iter().filter(|finding| finding.severity == severity);
            let found = found.filter(own).map(|finding| &finding.violation);
            found.map(|found| (found.code.clone(), found.pointer.clone())).collect()
        };
        let named = |violations: &[Violation]| -> BTreeSet<(String, String)> {
            violations.iter().map(|one| (one.code.clone(), one.pointer.clone())).collect()
        };
        assert_eq!(named(&refused), codes(Severity::Error), "{case}");
        // The bound of a registration may cut off what the longer rehearsal has found.
        let (told, all) = (named(&rehearsed.warnings), codes(Severity::Warning));
        assert!(told.is_subset(&all) && (!rehearsed.complete || told == all), "{case}");
        found_at_all += told.len();
    }
    assert!(found_at_all >= 5, "{found_at_all}");
}

#[test]
fn the_page_shows_what_is_found() {
    let page = include_str!("../../docs/rehearsal.md");
    let block = |fence: &str| page.split_once(fence).unwrap().1.split_once("```").unwrap().0;
    let definition = block("```json\n");
    let found = rehearse(&Arc::new(Graph::parse(definition).unwrap()), Bounds::default());
    let report = found.to_string();
    for line in block("```console\n").lines().skip(1).filter(|line| *line != "…") {
        assert!(report.lines().any(|told| told == line), "{line}\n{report}");
    }
    let mended =
        definition.replace(r#""name": "send_mail","#, r#""name": "send_mail", "class": "pivot","#);
    assert_ne!(mended, definition);
    rehearse(&Arc::new(Graph::parse(&mended).unwrap()), Bounds::default()).assert_closes();
}

#[test]
fn a_rehearsal_is_the_same_each_time_and_says_what_its_bound_cut_off() {
    let lines = ["a: map /input, undo".to_owned(), "b: after a, undo".to_owned()];
    let graph = Arc::new(workflow::graph(&lines));
    let first = rehearse(&graph, Bounds { faults: 2, traces: 100 });
    assert_eq!(first.to_string(), rehearse(&graph, Bounds { faults: 2, traces: 100 }).to_string());
    assert!(first.levels[0].complete && !first.levels[2].complete, "{first}");
    assert_eq!(first.traces(), 100, "{first}");
}
