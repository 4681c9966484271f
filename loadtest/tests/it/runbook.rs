//! Tables of the runbook that repeat what is in the code.

use std::{collections::BTreeSet, fs};

use proto::health::{Check, Scope};

#[test]
fn the_runbook_lists_every_check_with_its_status() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/README.md");
    let runbook = fs::read_to_string(path).unwrap();
    let (_, table) = runbook.split_once("## Checks of `/readyz`").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let told = rows.iter().map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`'), cells[3])
    });
    let all = Check::ALL.iter().map(|check| match check.scope() {
        Scope::Process => (check.name(), "503"),
        Scope::Shared => (check.name(), "200"),
    });
    assert_eq!(told.collect::<BTreeSet<_>>(), all.collect());
    assert_eq!(rows.len(), Check::ALL.len());
}
