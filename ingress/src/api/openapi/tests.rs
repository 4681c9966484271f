use std::collections::BTreeSet;

use proto::limits;

use super::*;
use crate::api;

fn documents() -> [(Contract, Value); 2] {
    Contract::ALL.map(|contract| (contract, contract.document().unwrap()))
}

/// Method and path of everything that a document describes.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    operations.collect()
}

/// Whether a request to the described path reaches the route.
fn reaches(path: &str, route: &str) -> bool {
    let (mut path, mut route) = (path.split('/'), route.split('/'));
    loop {
        match (path.next(), route.next()) {
            (Some(_), Some(any)) if any.starts_with("{*") => return true,
            (Some(part), Some(own)) if part == own || own.starts_with('{') => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[test]
fn every_route_is_described_and_everything_described_has_a_route() {
    let table = api::table();
    let documents = documents();
    let described: Vec<_> = documents
        .iter()
        .flat_map(|(_, one)| operations(one))
        .collect();
    for (route, method) in table.routes() {
        let found = described
            .iter()
            .any(|(own, path, _)| own == method.as_str() && reaches(path, route));
        assert!(found, "{method} {route} is not described");
    }
    for (method, path, _) in &described {
        let found = table
            .routes()
            .iter()
            .any(|(route, own)| own.as_str() == method && reaches(path, route));
        assert!(found, "{method} {path} has no route");
    }
}

#[test]
fn a_description_reaches_the_route_that_it_would_be_sent_to() {
    assert!(reaches("/files/{name}/content", "/files/{*rest}"));
    assert!(reaches("/executions/{id}", "/executions/{id}"));
    assert!(!reaches("/executions", "/executions/{id}"));
    assert!(!reaches("/executions/{id}/cancel", "/executions/{id}"));
    assert!(!reaches("/session", "/metadata"));
}

#[test]
fn both_contracts_together_have_every_version() {
    let versions: Vec<_> = Contract::ALL
        .into_iter()
        .flat_map(Contract::versions)
        .collect();
    assert_eq!(versions, query::API_VERSIONS);
}

#[test]
fn every_operation_has_a_version_a_name_of_its_own_and_refusals() {
    for (contract, document) in documents() {
        let mut names = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let what = format!("{contract:?} {method} {path}");
            assert!(
                names.insert(operation["operationId"].as_str().unwrap()),
                "{what}"
            );
            assert_eq!(operation["parameters"][0]["name"], "api-version", "{what}");
            for status in ["400", "401", "403", "404", "500", "503"] {
                assert!(
                    operation["responses"][status].is_object(),
                    "{what} {status}"
                );
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn look(document: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let found = document.pointer(reference.trim_start_matches('#'));
                    assert!(found.is_some(), "{reference}");
                }
                fields.values().for_each(|inner| look(document, inner));
            }
            Value::Array(entries) => entries.iter().for_each(|inner| look(document, inner)),
            _ => {}
        }
    }
    for (_, document) in documents() {
        look(&document, &document);
    }
}

#[test]
fn bounds_are_those_of_the_limits() {
    let (_, document) = &documents()[1];
    let identifier = &document["paths"]["/session"]["get"]["parameters"][1];
    assert_eq!(identifier["name"], "identifier");
    let bounds = limits::IDENTIFIER_CHARS;
    assert_eq!(identifier["schema"]["minLength"], *bounds.start());
    assert_eq!(identifier["schema"]["maxLength"], *bounds.end());
    let id = &document["paths"]["/executions/{id}"]["get"]["parameters"][2]["schema"];
    assert_eq!(id["maxLength"], limits::OPERATION_CHARS);
    let name = &document["paths"]["/files/{name}"]["get"]["parameters"][2]["schema"];
    assert_eq!(name["maxLength"], limits::FILE_PATH_BYTES);
}

#[test]
fn answers_hold_nothing_that_is_not_described() {
    for (_, document) in documents() {
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["Failure"]["additionalProperties"], false);
        assert_eq!(schemas["Error"]["additionalProperties"], false);
    }
    let (_, document) = &documents()[1];
    let execution = &document["components"]["schemas"]["Execution"];
    assert_eq!(execution["additionalProperties"], false);
    assert!(execution["properties"]["status"].is_object(), "{execution}");
    assert!(
        document["components"]["schemas"]["Cell"]
            .get("additionalProperties")
            .is_none()
    );
}
