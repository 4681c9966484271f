//! A table of contents: a router that remembers what it routes, so that it can be held against what is
//! described of it.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter},
};

use crate::app::App;

/// Paths with their methods, for a router.
#[derive(Debug, Default)]
pub struct Table {
    router: Router<App>,
    routes: Vec<Route>,
}

/// A path and a method of it.
pub type Route = (&'static str, Method);

/// The methods of one path.
#[derive(Debug, Default)]
pub struct Methods {
    router: MethodRouter<App>,
    methods: Vec<Method>,
}

impl Table {
    /// With another path.
    #[must_use]
    pub fn route(mut self, path: &'static str, methods: Methods) -> Self {
        self.router = self.router.route(path, methods.router);
        let methods = methods.methods.into_iter();
        self.routes.extend(methods.map(|method| (path, method)));
        self
    }

    /// What is in it.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The router.
    pub fn into_router(self) -> Router<App> {
        self.router
    }
}

/// A path with `GET`.
pub fn get<H: Handler<T, App>, T: 'static>(handler: H) -> Methods {
    Methods::default().get(handler)
}

/// A path with `POST`.
pub fn post<H: Handler<T, App>, T: 'static>(handler: H) -> Methods {
    Methods::default().post(handler)
}

impl Methods {
    /// `GET` as well.
    #[must_use]
    pub fn get<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.and(Method::GET, MethodFilter::GET, handler)
    }

    /// `POST` as well.
    #[must_use]
    pub fn post<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.and(Method::POST, MethodFilter::POST, handler)
    }

    /// `DELETE` as well.
    #[must_use]
    pub fn delete<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.and(Method::DELETE, MethodFilter::DELETE, handler)
    }

    fn and<H: Handler<T, App>, T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        handler: H,
    ) -> Self {
        self.router = self.router.on(filter, handler);
        self.methods.push(method);
        self
    }
}
