//! Tests of the rules of stored transforms.

use super::*;

#[test]
fn transforms_and_revisions_beyond_their_bound_are_refused() {
    let code = |count, revision| match check_room(count, revision) {
        Err(Error::Quota { code, .. }) => code,
        _ => "",
    };
    assert_eq!(code(MOST_TRANSFORMS - 1, MOST_REVISIONS), "");
    assert_eq!(code(MOST_TRANSFORMS, 1), "too_many_transforms");
    assert_eq!(code(0, MOST_REVISIONS + 1), "transform_full");
}

#[test]
fn a_cursor_names_a_transform_whole() {
    let edge = place("crm.contact 1 customer 2").unwrap();
    assert_eq!(words(&edge), "crm.contact@1 to customer@2");
    for text in ["", "a 1 b", "a 1 b 2 c", "a x b 2"] {
        assert!(place(text).is_none(), "{text}");
    }
}
