//! The page of limits says what the code says.

use super::blocks::root;

const BEGIN: &str = "<!-- the tables are printed from the code: BACKSTITCH_BLESS=1 -->\n";

#[test]
fn the_page_of_limits_has_the_bounds_of_the_code() {
    let file = root().join("docs/limits.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once(BEGIN).expect("the page has the mark");
    let printed = backstitch_api::bounds::page();
    if std::env::var_os("BACKSTITCH_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{printed}")).unwrap();
    } else {
        assert_eq!(after, printed, "print docs/limits.md anew with BACKSTITCH_BLESS=1");
    }
}
