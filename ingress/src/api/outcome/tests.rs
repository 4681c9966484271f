use proto::execution::Ending;

use super::*;

/// Of code that wrote `out` and `err`.
pub(in crate::api) fn outcome(ending: Ending) -> Outcome {
    Outcome {
        ending,
        stdout: "out".to_owned(),
        stderr: "err".to_owned(),
        displays: vec![],
        result: None,
        duration_ms: 8,
        durability: Durability::Durable,
        moved: None,
        incarnation: None,
        details: None,
    }
}

#[test]
fn names_fit_a_header_whatever_they_are() {
    let of = |names_: &[&str]| {
        let owned: Vec<String> = names_.iter().map(|name| (*name).to_owned()).collect();
        names(&owned).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(
        of(&["f", "größe", "a,b\n"]).unwrap(),
        "f, gr%C3%B6%C3%9Fe, a%2Cb%0A"
    );
    let many = vec!["x".repeat(100); 1000];
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(of(&many).unwrap().len() <= NAMES_BYTES);
}
