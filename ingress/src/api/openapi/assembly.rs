//! What all operations have in common, and what the derived parts leave open.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::api::{declare::THE_SAME_AS, front::OPERATION_ID};

/// What stands before the path of every operation.
const POOL: &str =
    "/subscriptions/{subscription}/resourceGroups/{resourceGroup}/sessionPools/{pool}";
/// What every reference to a schema begins with.
const SCHEMAS: &str = "#/components/schemas/";

type Fields = Map<String, Value>;

/// A whole document.
///
/// # Errors
/// Never: there is nothing in it that is not JSON.
pub fn assemble(document: &OpenApi, versions: &[&str]) -> Result<Value, serde_json::Error> {
    let mut document: Fields = serde_json::from_value(serde_json::to_value(document)?)?;
    let paths = take(&mut document, "paths").into_iter();
    // What the rest of a path may hold is the router's business.
    let mut paths: Fields = paths
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    for (path, item) in &mut paths {
        let required = !path.starts_with("/python/");
        let Some(item) = item.as_object_mut() else {
            continue;
        };
        for operation in item.values_mut() {
            complete(operation, versions, required);
        }
        // What is described stands before other spellings of it.
        let all = std::mem::take(item).into_iter();
        let (mut described, others): (Fields, Fields) = all.partition(|(_, operation)| {
            let summary = operation.get("summary").and_then(Value::as_str);
            !summary.unwrap_or_default().starts_with(THE_SAME_AS)
        });
        described.extend(others);
        *item = described;
    }
    paths.sort_keys();
    let mut components = take(&mut document, "components");
    let mut schemas = take(&mut components, "schemas");
    let responses = components.remove("responses").unwrap_or_default();
    schemas.values_mut().for_each(merge);
    for name in of_answers(&paths, &responses, &schemas) {
        schemas.get_mut(&name).into_iter().for_each(close);
    }
    let server = json!({ "url": POOL, "variables": {
        "subscription": { "default": "00000000-0000-0000-0000-000000000000" },
        "resourceGroup": { "default": "hearth" },
        "pool": { "default": "python" } } });
    let scheme = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" });
    Ok(json!({
        "openapi": document.get("openapi"),
        "info": document.get("info"),
        "servers": [server],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": { "bearer": scheme },
        },
    }))
}

fn take(fields: &mut Fields, name: &str) -> Fields {
    match fields.remove(name) {
        Some(Value::Object(inner)) => inner,
        _ => Fields::new(),
    }
}

/// Adds what every operation has.
fn complete(operation: &mut Value, versions: &[&str], required: bool) {
    let Some(operation) = operation.as_object_mut() else {
        return;
    };
    let version = json!({ "name": "api-version", "in": "query", "required": required,
        "description": "The version of the contract.",
        "schema": { "type": "string", "enum": versions } });
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.insert(0, version);
    }
    let named = json!({ "description": "The request's own, or a new one.",
                        "schema": { "type": "string" } });
    let responses = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    for (status, response) in responses.into_iter().flatten() {
        if let Some(response) = response.as_object_mut().filter(|_| status.starts_with('2')) {
            let headers = response.entry("headers").or_insert_with(|| json!({}));
            if let Some(headers) = headers.as_object_mut() {
                headers.insert(OPERATION_ID.to_owned(), named.clone());
            }
        }
    }
}

/// Names of the schemas that answers have.
fn of_answers(paths: &Fields, refusals: &Value, schemas: &Fields) -> BTreeSet<String> {
    let operations = paths
        .values()
        .filter_map(Value::as_object)
        .flat_map(Map::values);
    let answers = operations.filter_map(|operation| operation.get("responses"));
    let mut found = BTreeSet::new();
    for answer in answers.chain([refusals]) {
        find(answer, schemas, &mut found);
    }
    found
}

fn find(value: &Value, schemas: &Fields, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let referred = fields.get("$ref").and_then(Value::as_str);
            if let Some(name) = referred.and_then(|referred| referred.strip_prefix(SCHEMAS))
                && found.insert(name.to_owned())
                && let Some(schema) = schemas.get(name)
            {
                find(schema, schemas, found);
            }
            fields
                .values()
                .for_each(|inner| find(inner, schemas, found));
        }
        Value::Array(entries) => entries.iter().for_each(|inner| find(inner, schemas, found)),
        _ => {}
    }
}

/// A flattened type is derived as a list of objects that hold together; they are one object.
fn merge(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    let Some(Value::Array(parts)) = fields.remove("allOf") else {
        return;
    };
    let (mut properties, mut required) = (Fields::new(), vec![]);
    for part in parts {
        let Value::Object(mut part) = part else {
            continue;
        };
        properties.append(&mut take(&mut part, "properties"));
        if let Some(Value::Array(mut names)) = part.remove("required") {
            required.append(&mut names);
        }
    }
    fields.insert("type".to_owned(), "object".into());
    fields.insert("required".to_owned(), required.into());
    fields.insert("properties".to_owned(), properties.into());
}

/// Answers hold what is described and nothing else.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // A map of properties may have one of that name, and is no schema.
            if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                let more = fields.entry("additionalProperties");
                more.or_insert(Value::Bool(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(entries) => entries.iter_mut().for_each(close),
        _ => {}
    }
}
