//! The committed documents are those that the code makes, and the tests that they name exist.

use std::{fs, path::Path};

use ingress::{
    documents,
    error::{ErrorCode, endings},
};

#[test]
fn the_committed_documents_are_those_of_the_code() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR"));
    let instead = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    let stale = documents::all().into_iter().filter(|(path, text)| {
        fs::read_to_string(committed.join(path)).ok().as_ref() != Some(text)
    });
    let stale: Vec<_> = stale.map(|(path, _)| path).collect();
    if !stale.is_empty() {
        documents::write(&instead).unwrap();
    }
    assert!(
        stale.is_empty(),
        "{stale:?} differ from {}: look at the changes and run `make documents`",
        instead.display()
    );
}

#[test]
fn every_named_test_exists_and_is_about_what_names_it() {
    let codes = ErrorCode::ALL.iter().map(|code| (code.name(), code.test()));
    let endings = endings::rows().into_iter().map(|row| (row.name, row.test));
    for (name, place) in codes.chain(endings) {
        let (file, function) = place.split_once("::").unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let head = format!("fn {function}(");
        let before = text.split_once(&head).map(|(before, _)| before);
        let attributes: Vec<_> = before.unwrap_or_default().lines().rev().take(3).collect();
        assert!(
            attributes
                .iter()
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")),
            "{name}: {place} is no test"
        );
    }
}

#[test]
fn every_code_is_named_in_the_file_of_its_test() {
    for code in ErrorCode::ALL {
        let (file, _) = code.test().split_once("::").unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        // The worker's tests know the fault that becomes the code.
        let names = [code.name(), "RecordsFull"];
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            names.iter().any(|name| text.contains(name)),
            "{} in {file}",
            code.name()
        );
    }
}
