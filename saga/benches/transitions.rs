//! Measures a transition of the pure core: time and allocations. `cargo bench -p backstitch-saga`.
//!
//! A transition is one step done: its task handed out and reported, and the next one offered.

#[path = "../tests/load/mod.rs"]
mod load;

use backstitch_saga::Payload;
use divan::counter::ItemsCount;
use load::{fan_out, payload, run_of, sequence, whole};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

/// Decides five steps in sequence, with payloads of 200 bytes.
#[divan::bench]
fn decide_sequence(bencher: divan::Bencher<'_, '_>) {
    let (graph, payload) = (sequence(5), payload());
    bencher
        .counter(ItemsCount::new(5_usize))
        .bench(|| whole(&graph, &payload, &payload, &mut Vec::new()));
}

/// Folds the same from its journal.
#[divan::bench]
fn apply_sequence(bencher: divan::Bencher<'_, '_>) {
    let (graph, payload) = (sequence(5), payload());
    let journal = whole(&graph, &payload, &payload, &mut Vec::new());
    bencher.counter(ItemsCount::new(5_usize)).bench(|| {
        let mut run = run_of(&graph);
        journal.iter().for_each(|record| run.apply(record));
        run
    });
}

/// Decides a fan-out: its cost per item must not grow with the number of items.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 5)]
fn decide_fan_out(bencher: divan::Bencher<'_, '_>, items: usize) {
    let (graph, output) = (fan_out(), Payload::null());
    let input = Payload::of(&vec!["item"; items]).expect("a list of texts");
    bencher
        .counter(ItemsCount::new(items))
        .bench(|| whole(&graph, &input, &output, &mut Vec::new()));
}
