//! Allocations of transitions. The counts are the same on every machine, so a regression shows here first; `cargo
//! bench -p backstitch-saga` measures its cost in time.

mod load;

use std::sync::Arc;

use allocation_counter::measure;
use backstitch_saga::{Graph, Payload};
use load::{fan_out, payload, sequence, whole};

/// Fails when a unit of the work allocates more than a tenth above what it is said to.
#[track_caller]
fn allocates(graph: &Arc<Graph>, input: &Payload, output: &Payload, units: u64, each: [u64; 2]) {
    let mut effects = Vec::new();
    drop(whole(graph, input, output, &mut effects));
    let found = measure(|| drop(whole(graph, input, output, &mut effects)));
    let found = [found.count_total / units, found.bytes_total / units];
    let is_more = |(found, said): (&u64, &u64)| *found > said + said / 10;
    assert!(
        !found.iter().zip(&each).any(is_more),
        "{found:?} allocations and bytes for each, where {each:?} were enough"
    );
}

#[test]
fn a_step_of_a_saga_of_five() {
    allocates(&sequence(5), &payload(), &payload(), 5, [9, 1_531]);
}

#[test]
fn a_step_of_a_saga_of_fifty() {
    allocates(&sequence(50), &payload(), &payload(), 50, [7, 1_309]);
}

#[test]
fn an_item_of_a_fan_out_whatever_its_size() {
    // Lists grow by doubling, and so are now more full and now less.
    for (items, bytes) in [(1_000, 1_476), (16_000, 1_783)] {
        let list = Payload::of(&vec!["item"; items]).expect("a list of texts");
        allocates(&fan_out(), &list, &Payload::null(), items as u64, [6, bytes]);
    }
}
