//! Histories that once broke a law, each with what was wrong.

use super::{graph, try_it};

/// An item that lost its join was being undone again when the whole run turned round; the item before it was passed by.
#[test]
fn a_retried_undo_does_not_hide_the_items_before_it() {
    let history = [
        (0, 0, 0),
        (0, 0, 0),
        (16, 0, 0),
        (14, 0, 0),
        (85, 162, 16),
        (128, 0, 0),
        (32, 0, 0),
        (218, 0, 1),
        (154, 0, 16),
    ];
    try_it(graph(&[(0, 183, 0, 1), (91, 4, 64, 0)], None), 133, history.to_vec());
}

/// A run was killed while it was undone; undoing a part of it later left the rest blocked, and nobody was told.
#[test]
fn what_a_kill_left_does_not_block_a_later_compensation() {
    let history =
        [(32, 0, 0), (32, 0, 0), (42, 0, 1), (79, 88, 254), (15, 20, 51), (0, 0, 0), (0, 0, 0)];
    try_it(graph(&[(0, 0, 0, 2), (0, 0, 0, 0)], None), 106, history.to_vec());
}

/// An undo that had waited for others was offered when one of these was lost; that it took long was told a tick later only.
#[test]
fn what_becomes_due_with_a_tick_is_done_with_it() {
    let history = [
        (10, 0, 1),
        (208, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (0, 0, 0),
        (250, 0, 61),
        (128, 0, 0),
        (5, 0, 119),
        (122, 0, 55),
        (48, 0, 0),
        (26, 0, 40),
        (10, 0, 1),
        (234, 0, 4),
        (208, 0, 0),
        (186, 0, 55),
    ];
    let drawn = [(0, 4, 152, 0), (0, 45, 65, 85), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)];
    try_it(graph(&drawn, Some(2)), 53, history.to_vec());
}

/// A step was done anew after a verification had said that it had happened; told again, that contradicted the new output.
#[test]
fn a_verdict_of_before_a_rerun_contradicts_nothing() {
    let history = [
        (106, 0, 55),
        (80, 0, 0),
        (10, 0, 7),
        (32, 0, 0),
        (37, 0, 8),
        (0, 0, 0),
        (0, 0, 0),
        (15, 4, 217),
    ];
    let drawn = [(0, 31, 0, 0), (0, 178, 48, 0), (0, 0, 0, 0), (0, 0, 0, 0)];
    try_it(graph(&drawn, Some(2)), 0, history.to_vec());
}

/// A step was parked while no worker had its attempt; reports of that attempt were taken for repeats, until a person or a later
/// contradiction said how the step ended.
#[test]
fn an_attempt_that_no_worker_had_is_over_once_its_step_is_parked() {
    let history = [(186, 0, 13), (238, 0, 3), (44, 0, 84), (60, 0, 16)];
    try_it(graph(&[(0, 8, 172, 0)], None), 0, history.to_vec());
    let drawn = [(0, 0, 204, 0), (0, 50, 0, 0), (0, 116, 120, 0)];
    let history = [(126, 0, 89), (234, 0, 1), (254, 0, 251), (60, 0, 52), (252, 0, 128)];
    try_it(graph(&drawn, None), 76, history.to_vec());
    let drawn = [(0, 91, 124, 0), (0, 174, 0, 0), (200, 1, 0, 0), (244, 52, 108, 0)];
    let history = [
        (0, 56, 0),
        (181, 0, 116),
        (16, 0, 0),
        (149, 0, 16),
        (42, 0, 1),
        (206, 0, 43),
        (96, 36, 0),
        (101, 0, 0),
        (252, 0, 28),
        (60, 0, 216),
    ];
    try_it(graph(&drawn, None), 0, history.to_vec());
    let history = [
        (192, 0, 0),
        (0, 0, 0),
        (5, 0, 20),
        (37, 0, 92),
        (186, 0, 28),
        (170, 0, 1),
        (94, 0, 71),
        (92, 19, 36),
        (96, 86, 0),
        (149, 0, 0),
        (76, 0, 56),
    ];
    try_it(graph(&[(0, 81, 108, 52), (49, 0, 0, 0)], None), 57, history.to_vec());
}
