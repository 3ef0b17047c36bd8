//! Tests of the pictures of workflows.

use super::*;

fn graph(steps: &str) -> Graph {
    Graph::parse(&format!(r#"{{"name":"w","version":1,"steps":[{steps}]}}"#)).unwrap()
}

fn step(id: &str, after: &str) -> String {
    let after: Vec<String> = after.split_whitespace().map(|name| format!("\"{name}\"")).collect();
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
fn a_line_that_skips_a_layer_passes_beside_the_steps_of_it() {
    let picture = plain(&all(&[("a", ""), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "d c")]));
    let spot = |id: &str| picture.spots.iter().find(|spot| spot.id == id).unwrap();
    let way = picture.ways.iter().find(|way| way.from == "d" && way.to == "e").unwrap();
    let (c, between) = (spot("c"), way.passes[0]);
    assert_eq!((way.passes.len(), between.0), (1, c.x), "d stands two layers before e");
    assert!(between.1 < c.y || between.1 > c.y + HEIGHT, "{between:?} {c:?}");
    for line in [way.forward(), way.back()] {
        assert!(line.contains(&format!("H{}", c.x)) || line.contains(&format!("H{}", c.x + WIDTH)));
    }
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
    let inside = |spot: &Spot| spot.x + WIDTH < picture.width && spot.y + HEIGHT < picture.height;
    assert!(picture.spots.iter().all(inside));
}

#[test]
fn rows_of_steps_that_are_done_are_drawn_as_one() {
    let graph = all(&[("a", ""), ("b", "a"), ("c", "b"), ("d", "c"), ("x", "c"), ("e", "d x")]);
    let done = |names: &'static [&str]| {
        drawn(&graph, move |at| names.contains(&["a", "b", "c", "d", "x", "e"][at]))
    };
    let told = |picture: &Picture| {
        let mut told: Vec<String> = picture.spots.iter().map(|spot| spot.id.clone()).collect();
        told.sort();
        told
    };
    let picture = done(&["a", "b", "c", "d"]);
    assert_eq!(told(&picture), ["a b c", "d", "e", "x"], "two follow c");
    assert_eq!(picture.edges.len(), 4);
    let row = picture.spots.iter().find(|spot| spot.folded).unwrap();
    assert_eq!((row.name.as_str(), row.sub.as_str()), ("a … c", "3 steps"));
    assert_eq!(told(&done(&["a", "c"])), ["a", "b", "c", "d", "e", "x"]);
    assert_eq!(told(&done(&[])).len(), 6);
}
