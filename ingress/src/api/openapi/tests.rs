use std::collections::BTreeSet;

use proto::limits;

use super::*;

fn documents() -> [(Contract, Value); 2] {
    Contract::ALL.map(|contract| (contract, document(contract).unwrap()))
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
    let [(_, old), (_, document)] = &documents();
    let answer = &old["components"]["schemas"]["CodeExecuteResponse"];
    assert_eq!(answer["additionalProperties"], false);
    assert!(answer["properties"].get("additionalProperties").is_none());
    let execution = &document["components"]["schemas"]["Execution"];
    assert_eq!(execution["additionalProperties"], false);
    assert!(execution["properties"]["status"].is_object(), "{execution}");
    assert!(
        document["components"]["schemas"]["Cell"]
            .get("additionalProperties")
            .is_none()
    );
}
