//! The code in `docs/sdk.md` is that of `examples/buy.rs`, which compiles and is tested.

const GUIDE: &str = include_str!("../../docs/sdk.md");
const PROGRAM: &str = include_str!("../examples/buy.rs");

#[test]
fn the_guide_shows_the_program() {
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let program = lines(PROGRAM);
    let mut blocks = 0;
    for block in GUIDE.split("```rust\n").skip(1) {
        let code = block.split("```").next().unwrap_or_default();
        for piece in code.split("\n\n") {
            assert!(program.contains(&lines(piece)), "examples/buy.rs has no such lines:\n{piece}");
        }
        blocks += 1;
    }
    assert!(blocks >= 5, "only {blocks} blocks of code were found");
}
