//! The code in `docs/sdk.md` is that of `examples/buy.rs`, and that in `docs/payloads.md` of `examples/encrypted.rs`,
//! which compile and are tested.

const GUIDE: &str = include_str!("../../docs/sdk.md");
const PROGRAM: &str = include_str!("../examples/buy.rs");

/// Checks that all Rust of a page stands in a program. Returns how many blocks it has.
fn shown(page: &str, program: &str) -> usize {
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let program = lines(program);
    let mut blocks = 0;
    for block in page.split("```rust\n").skip(1) {
        let code = block.split("```").next().unwrap_or_default();
        for piece in code.split("\n\n") {
            assert!(program.contains(&lines(piece)), "the program has no such lines:\n{piece}");
        }
        blocks += 1;
    }
    blocks
}

#[test]
fn the_guide_shows_the_program() {
    let blocks = shown(GUIDE, PROGRAM);
    assert!(blocks >= 5, "only {blocks} blocks of code were found");
}

#[test]
fn the_page_of_payloads_shows_the_program_that_encrypts() {
    let page = include_str!("../../docs/payloads.md");
    assert_eq!(shown(page, include_str!("../examples/encrypted.rs")), 2);
}
