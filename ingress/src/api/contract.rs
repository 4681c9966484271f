//! The two contracts: which api-versions speak them, and how their operations are declared.

use axum::routing::MethodRouter;
use utoipa::openapi::{ComponentsBuilder, HttpMethod, OpenApiBuilder, Paths};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

/// api-versions of the contracts. The path tells the contract, except for the paths that both have.
pub const API_VERSIONS: [&str; 6] = [
    "2023-08-01-preview",
    "2024-02-02-preview",
    "2024-08-02-preview",
    "2024-10-02-preview",
    "2025-02-02-preview",
    "2025-10-02-preview",
];

/// An api-version that was withdrawn before it was announced. It is known where `executions` have the name that they
/// had in it.
pub const WITHDRAWN: &str = "2024-09-01";

/// First api-version of the new contract, which answers in other shapes.
const NEW_CONTRACT: &str = "2024-10-02";
/// First api-version that knows pools of shells.
pub const SHELL: &str = "2025-02-02";
/// First api-version whose listings reach into sub-directories.
pub const RECURSIVE: &str = "2025-10-02";

/// How the summary of another spelling of an operation begins.
pub const THE_SAME_AS: &str = "The same as";

/// In what words a caller speaks and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Of api-versions before 2024-10-02-preview.
    Old,
    /// Of that version and those since.
    New,
}

impl Contract {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Old, Self::New];

    /// That of an api-version.
    #[must_use]
    pub fn of(version: &str) -> Self {
        if version >= NEW_CONTRACT {
            Self::New
        } else {
            Self::Old
        }
    }

    /// In the names of files and addresses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    /// Its api-versions.
    #[must_use]
    pub fn versions(self) -> Vec<&'static str> {
        let versions = API_VERSIONS.into_iter();
        versions
            .filter(|version| Self::of(version) == self)
            .collect()
    }
}

/// Ways to declare operations that [`OpenApiRouter`] does not have.
pub trait Declare {
    /// Operations that are reached at another path than they are described at.
    #[must_use]
    fn routes_at(self, path: &str, operations: UtoipaMethodRouter) -> Self;
    /// Operations that are reached by the routes of others.
    #[must_use]
    fn described(self, operations: UtoipaMethodRouter) -> Self;
}

impl Declare for OpenApiRouter {
    fn routes_at(self, path: &str, (schemas, paths, handlers): UtoipaMethodRouter) -> Self {
        let described = self.described((schemas, paths, MethodRouter::new()));
        described.route(path, handlers)
    }

    fn described(mut self, (schemas, paths, _): UtoipaMethodRouter) -> Self {
        let components = ComponentsBuilder::new().schemas_from_iter(schemas).build();
        let more = OpenApiBuilder::new().paths(paths);
        let more = more.components(Some(components)).build();
        self.get_openapi_mut().merge(more);
        self
    }
}

/// Another spelling of an operation that `routes!` declares: `another!(Post "/execute", execute)`.
macro_rules! another {
    ($method:ident $path:literal, $handler:path) => {{
        let method = utoipa::openapi::HttpMethod::$method;
        let filter = utoipa_axum::PathItemExt::to_method_filter(&method);
        let handlers = axum::routing::on(filter, $handler);
        let name = stringify!($method).to_ascii_lowercase();
        let operation = utoipa_axum::routes!($handler);
        $crate::api::contract::same_as(operation, $path, (&name, method), handlers)
    }};
}
pub(super) use another;

/// An operation at another path, described as the same.
pub fn same_as(
    (schemas, of, _): UtoipaMethodRouter,
    path: &str,
    (name, method): (&str, HttpMethod),
    handlers: MethodRouter,
) -> UtoipaMethodRouter {
    let id = format!("{name}{path}").replace('*', "");
    let id = id.replace(|one: char| !one.is_ascii_alphanumeric(), "_");
    let mut paths = Paths::new();
    for (of_path, item) in of.paths {
        let operations = [
            ("GET", item.get),
            ("POST", item.post),
            ("DELETE", item.delete),
        ];
        for (of_method, operation) in operations {
            if let Some(mut operation) = operation {
                operation.operation_id = Some(id.clone());
                operation.summary = Some(format!("{THE_SAME_AS} `{of_method} {of_path}`"));
                paths.add_path_operation(path, vec![method.clone()], operation);
            }
        }
    }
    (schemas, paths, handlers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_contracts_together_have_every_version() {
        let versions: Vec<_> = Contract::ALL
            .into_iter()
            .flat_map(Contract::versions)
            .collect();
        assert_eq!(versions, API_VERSIONS);
    }
}
