//! The committed documents are those that the code makes, and the tests that they name exist. They are committed
//! so that they can be read without building anything, and so that changes of what callers are promised are seen.

use std::{fs, path::Path};

use clap::CommandFactory;
use ingress::{
    api::{contract::Contract, openapi},
    config::Arguments,
    error::ErrorCode,
};
use loadtest::documents;

mod endings;
mod errors;
mod provoked;

fn here(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_committed_page_of_errors_is_that_of_the_code() {
    documents::keep(&here("ERRORS.md"), &errors::page());
}

#[test]
fn the_committed_contracts_are_those_of_the_code() {
    for contract in Contract::ALL {
        let path = here(&format!("openapi/{}.json", contract.name()));
        documents::keep(&path, &openapi::text(contract));
    }
}

#[test]
fn the_committed_settings_are_those_of_the_code() {
    let command = Arguments::command();
    let serve = command.find_subcommand("serve").unwrap();
    documents::keep_settings("ingress serve", [&command, serve]);
}

#[test]
fn every_named_test_exists_and_is_about_what_names_it() {
    let codes = ErrorCode::ALL
        .iter()
        .map(|code| (code.name(), provoked::of_code(*code)));
    let endings = endings::rows()
        .into_iter()
        .map(|row| (row.name, provoked::of_ending(row.name)));
    for (name, place) in codes.chain(endings) {
        let (file, function) = place.split_once("::").unwrap();
        let text = fs::read_to_string(here("..").join(file)).unwrap_or_default();
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
        let (file, _) = provoked::of_code(*code).split_once("::").unwrap();
        // The worker's tests know the fault that becomes the code.
        let names = [code.name(), "RecordsFull"];
        let text = fs::read_to_string(here("..").join(file)).unwrap();
        assert!(
            names.iter().any(|name| text.contains(name)),
            "{} in {file}",
            code.name()
        );
    }
}
