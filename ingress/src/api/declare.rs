//! Ways to declare operations that [`OpenApiRouter`] does not have.

use axum::{
    handler::Handler,
    routing::{MethodRouter, on},
};
use utoipa::openapi::{ComponentsBuilder, HttpMethod, OpenApiBuilder, Paths};
use utoipa_axum::{
    PathItemExt,
    router::{OpenApiRouter, UtoipaMethodRouter},
};

/// How the summary of another spelling of an operation begins.
pub const THE_SAME_AS: &str = "The same as";

/// Operations whose descriptions and routes differ.
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
    ($method:ident $path:literal, $handler:path) => {
        $crate::api::declare::same_as(
            utoipa_axum::routes!($handler),
            (stringify!($method), utoipa::openapi::HttpMethod::$method),
            $path,
            $handler,
        )
    };
}
pub(super) use another;

/// An operation at another path, described as the same.
pub fn same_as<H: Handler<T, ()>, T: 'static>(
    (schemas, of, _): UtoipaMethodRouter,
    (name, method): (&str, HttpMethod),
    path: &str,
    handler: H,
) -> UtoipaMethodRouter {
    let id = format!("{}{path}", name.to_ascii_lowercase()).replace('*', "");
    let id = id.replace(|one: char| !one.is_ascii_alphanumeric(), "_");
    let handlers = on(method.to_method_filter(), handler);
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
